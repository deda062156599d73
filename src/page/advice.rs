//! What to do next, by the kind of error that stopped a run. The words are those of the reference's table of errors, in
//! both languages; a test holds them equal.

use super::Lang;

/// What an error means and what to do about it. `None` for a kind that this program does not know.
pub(super) fn advice(lang: Lang, kind: &str) -> Option<(&'static str, &'static str)> {
    let (_, english, chinese) = ERRORS.iter().find(|(name, ..)| *name == kind)?;
    Some(match lang {
        Lang::En => *english,
        Lang::Zh => *chinese,
    })
}

type Words = (&'static str, &'static str);

/// The kind; what it means and what to do in English; the same in Chinese. Code stands in backticks.
const ERRORS: [(&str, Words, Words); 19] = [
    (
        "BadEvent",
        (
            "the event is not one of those above, or an id or a file of a command is wrong",
            "correct the field, id or file that it names",
        ),
        ("事件不是上述之一，或命令的 id 或文件有误", "更正它指出的字段、id 或文件"),
    ),
    (
        "BadPipeline",
        (
            "the pipeline file has mistakes, or cannot be found; nothing was called",
            "`okki-sync check` lists all mistakes",
        ),
        ("管道文件有误或找不到；未发起任何调用", "`okki-sync check` 会列出所有错误"),
    ),
    (
        "MissingCredentials",
        (
            "a credential is missing or has the wrong form, or the secret cannot be read",
            "set the variable or the secret's field that it names",
        ),
        ("缺少凭据或凭据格式有误，或者 secret 无法读取", "设置它指出的变量或 secret 的字段"),
    ),
    (
        "SourceCredentialsRefused",
        (
            "OKKI refused the credentials, also when read afresh",
            "correct `OKKI_CLIENT_ID`, `OKKI_CLIENT_SECRET`, or grant the app the product module in OKKI's console",
        ),
        (
            "OKKI 拒绝了凭据，重新读取后仍被拒绝",
            "更正 `OKKI_CLIENT_ID`、`OKKI_CLIENT_SECRET`，或在 OKKI 后台为应用授予产品模块权限",
        ),
    ),
    (
        "TargetCredentialsRefused",
        (
            "the target refused the credentials, or answered HTTP 401, or 403 without an HTML page",
            "correct the key, secret or token; look for an IP allow-list at the target",
        ),
        (
            "目标端拒绝了凭据，或应答 HTTP 401，或应答不带 HTML 页面的 403",
            "更正 key、secret 或 token；检查目标端是否有 IP 白名单",
        ),
    ),
    (
        "SourceUnavailable",
        ("OKKI could not be reached, or failed after all attempts", "look at OKKI; the next run tries again"),
        ("无法连接 OKKI，或多次尝试后仍失败", "检查 OKKI；下次运行会再试"),
    ),
    (
        "TargetUnavailable",
        (
            "the target could not be reached, or failed after all attempts",
            "look at the target; the next run tries again",
        ),
        ("无法连接目标端，或多次尝试后仍失败", "检查目标端；下次运行会再试"),
    ),
    (
        "SourceBadAnswer",
        (
            "OKKI answered something that is not its protocol, or refused the request as such",
            "check `source.base_url` and proxies on the way",
        ),
        ("OKKI 的应答不符合其协议，或请求本身被拒绝", "检查 `source.base_url` 和途中的代理"),
    ),
    (
        "TargetBadAnswer",
        (
            "the target answered something that is not its protocol, or refused the request as such; or it refuses too many rows to find each one (64 calls)",
            "check `target.scheme_id` or `target.url`, then `[record]` against the scheme",
        ),
        (
            "目标端的应答不符合其协议，或请求本身被拒绝；或它拒绝的行太多，无法逐一找出（64 次调用）",
            "检查 `target.scheme_id` 或 `target.url`，再对照方案检查 `[record]`",
        ),
    ),
    (
        "SourceThrottled",
        (
            "OKKI wants no more calls for a while: the run is `paused`",
            "come back after `resume_after_seconds`; lower `source.max_requests_per_second`",
        ),
        (
            "OKKI 暂时不接受调用：运行为 `paused`",
            "在 `resume_after_seconds` 之后再来；调低 `source.max_requests_per_second`",
        ),
    ),
    (
        "TargetThrottled",
        (
            "the minute's calls are used up, or the target locked the key out: the run is `paused`",
            "come back after `resume_after_seconds`; lower `target.requests_per_minute` if others than the connections of this store use the key",
        ),
        (
            "本分钟的调用次数已用完，或目标端锁定了该密钥：运行为 `paused`",
            "在 `resume_after_seconds` 之后再来；若除本存储的连接外还有他人使用该密钥，调低 `target.requests_per_minute`",
        ),
    ),
    (
        "InconsistentSource",
        (
            "a page that holds all rows of its time contradicts its own total, or a source that has to be read the old way never stood still; nothing was written",
            "compare the total with the rows of `GET /v1/product/list`; in the second case run when the catalogue is not being edited",
        ),
        (
            "某一页应当包含其时间段的所有行，却与自己的总数矛盾；或者必须按旧方式读取的数据源一直在变动；没有写入任何内容",
            "把总数与 `GET /v1/product/list` 的行数对照；后一种情况请在目录不被编辑时运行",
        ),
    ),
    (
        "GuardRefused",
        (
            "the plan takes away too much, the source is empty, or the plan is not the one that was approved; nothing was written",
            "look with `okki-sync plan`; if it is right, `--approve` its digest, or `--allow-mass-delete` once",
        ),
        (
            "计划删除过多、数据源为空，或计划不是已批准的那一个；未写入任何内容",
            "用 `okki-sync plan` 查看；如果确实如此，用 `--approve` 批准其摘要码，或用一次 `--allow-mass-delete`",
        ),
    ),
    (
        "HeldBackTooMany",
        (
            "value guards would hold back more than `guard.max_held_ratio`; nothing was written",
            "look with `okki-sync plan`; correct `guard.values` or the source, or raise the ratio",
        ),
        (
            "数值防护要扣留的超过 `guard.max_held_ratio`；未写入任何内容",
            "用 `okki-sync plan` 查看；改正 `guard.values` 或数据源，或调高此比例",
        ),
    ),
    (
        "BadState",
        (
            "the state is damaged, newer than this program, or of another connection or target; nothing was written",
            "as the message says: use the newer program, another connection name, or `okki-sync state rebuild`",
        ),
        (
            "状态已损坏、比程序版本更新，或属于其他连接或目标端；未写入任何内容",
            "按消息处理：使用更新的程序，换一个连接名，或执行 `okki-sync state rebuild`",
        ),
    ),
    (
        "StateConflict",
        ("another run saved the state meanwhile; nothing was overwritten", "run again"),
        ("另一次运行在此期间保存了状态；未覆盖任何内容", "再次运行"),
    ),
    (
        "Busy",
        ("another run of this connection is going on", "wait for it; the message says since when it runs"),
        ("同一连接的另一次运行正在进行", "等它结束；消息会说明它从何时开始"),
    ),
    (
        "StoreUnavailable",
        ("the store cannot be read or written", "check `OKKI_SYNC_STORE`, permissions and region"),
        ("存储无法读取或写入", "检查 `OKKI_SYNC_STORE`、权限和区域"),
    ),
    (
        "Interrupted",
        ("the run's time has run out, or it was asked to stop: it is `paused`", "run again"),
        ("运行时间用尽，或被要求停止：运行为 `paused`", "再次运行"),
    ),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The cells of an error's row in a reference, without the addresses of links.
    fn row(reference: &str, kind: &str) -> (String, String) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(reference);
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("| `{kind}` |"))).unwrap().to_owned();
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, meaning, advice] = cells.as_slice() else { panic!("{line}") };
        (without_links(meaning), without_links(advice))
    }

    fn without_links(text: &str) -> String {
        let mut parts = text.split("](");
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
        rest.fold(first, |text, rest| text + rest).replace('[', "").replace("`record]`", "`[record]`")
    }

    #[test]
    fn the_page_advises_with_the_words_of_the_reference() {
        let code = include_str!("../error.rs");
        for (kind, english, chinese) in &ERRORS {
            assert!(code.contains(&format!("=> \"{kind}\"")), "{kind} is no kind of error");
            let same = |told: &Words, reference: &str| {
                let (meaning, advice) = row(reference, kind);
                assert_eq!((told.0, told.1), (meaning.as_str(), advice.as_str()), "{reference}");
            };
            same(english, "docs/reference.md");
            same(chinese, "docs/reference.zh-CN.md");
        }
    }
}
