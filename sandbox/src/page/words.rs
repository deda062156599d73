//! Every text of the page, in both languages. A struct: a language that lacks one does not compile.

use super::compare::Mark;

/// The languages of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    En,
    Zh,
}

impl Lang {
    /// The language that a word such as `zh` names.
    pub(super) fn named(word: &str) -> Option<Self> {
        match word {
            "en" => Some(Self::En),
            "zh" => Some(Self::Zh),
            _ => None,
        }
    }

    /// The first known language of an `Accept-Language` header, by its weights; else English.
    pub(super) fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::En);
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            let named = Self::named(tag.split('-').next().unwrap_or_default());
            if let Some(lang) = named.filter(|_| weight > best.0) {
                best = (weight, lang);
            }
        }
        best.1
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// The tag for `<html lang>`.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::En => &ENGLISH,
            Self::Zh => &CHINESE,
        }
    }
}

/// The texts of one language. `{n}` is filled in; what stands in backticks is code.
pub(super) struct Words {
    pub title: &'static str,
    pub language: &'static str,
    pub addresses: &'static str,
    pub try_it: &'static str,
    pub glance: &'static str,
    pub groups: &'static str,
    pub products: &'static str,
    pub rows: &'static str,
    pub missing: &'static str,
    pub extra: &'static str,
    pub different: &'static str,
    pub empty_target: &'static str,
    pub in_step: &'static str,
    pub people: &'static str,
    pub working_day: &'static str,
    pub import: &'static str,
    pub how_many: &'static str,
    pub restore: &'static str,
    pub edits_per_minute: &'static str,
    pub set: &'static str,
    pub trouble: &'static str,
    pub lock_okki: &'static str,
    pub lock_target: &'static str,
    pub revoke: &'static str,
    pub latency: &'static str,
    pub break_next: &'static str,
    pub endpoint: &'static str,
    pub fault: &'static str,
    pub times: &'static str,
    pub waiting_faults: &'static str,
    pub mend: &'static str,
    pub both_sides: &'static str,
    pub legend: &'static str,
    pub okki_side: &'static str,
    pub target_side: &'static str,
    pub no_group: &'static str,
    pub nothing: &'static str,
    pub change: &'static str,
    pub name: &'static str,
    pub cost: &'static str,
    pub save: &'static str,
    pub delete: &'static str,
    pub more: &'static str,
    pub open: &'static str,
    pub differences_below: &'static str,
    pub calls: &'static str,
    pub calls_shown: &'static str,
    pub no_calls: &'static str,
    pub time: &'static str,
    pub side: &'static str,
    pub call: &'static str,
    pub status: &'static str,
    pub took: &'static str,
    pub lost: &'static str,
    pub okki: &'static str,
    pub target: &'static str,
    pub back: &'static str,
    pub live: &'static str,
    pub stopped: &'static str,
    pub done: &'static str,
    pub bad_number: &'static str,
    pub bad_cost: &'static str,
    pub bad_name: &'static str,
    pub gone: &'static str,
    pub none_deleted: &'static str,
    pub bad_form: &'static str,
    marks: [&'static str; 5],
}

impl Words {
    /// A mark for who cannot see its sign.
    pub(super) fn mark(&self, mark: Mark) -> &'static str {
        let [same, missing, extra, different, apart] = self.marks;
        match mark {
            Mark::Same => same,
            Mark::Missing => missing,
            Mark::Extra => extra,
            Mark::Different => different,
            Mark::Apart => apart,
        }
    }
}

/// A text with its `{n}` filled in.
pub(super) fn fill(text: &str, n: impl std::fmt::Display) -> String {
    text.replace("{n}", &n.to_string())
}

static ENGLISH: Words = Words {
    title: "Sandbox",
    language: "Language",
    addresses: "A local OKKI and a local target. Whoever runs `okki-sync` with the variables that `okki-sync sandbox` has printed works on what you see here.",
    try_it: "Change something at OKKI, run `okki-sync plan`, then `okki-sync sync`, and watch the target follow.",
    glance: "At a glance",
    groups: "groups at OKKI",
    products: "products at OKKI",
    rows: "rows at the target",
    missing: "missing at the target",
    extra: "only at the target",
    different: "different",
    empty_target: "The target is empty: run `okki-sync sync`.",
    in_step: "Both sides are in step.",
    people: "What people do at OKKI",
    working_day: "A working day of changes",
    import: "Import products",
    how_many: "how many",
    restore: "Bring back the last deleted product",
    edits_per_minute: "changes a minute, without end",
    set: "Set",
    trouble: "Break and slow down",
    lock_okki: "Lock out of OKKI",
    lock_target: "Lock out of the target",
    revoke: "Revoke all tokens",
    latency: "each answer takes, in ms",
    break_next: "Break the next calls",
    endpoint: "which calls",
    fault: "what goes wrong",
    times: "how often",
    waiting_faults: "{n} faults wait for their calls.",
    mend: "Mend everything",
    both_sides: "Both sides",
    legend: "= the same   + missing at the target   - only at the target   * different   · the target has no such rows",
    okki_side: "OKKI",
    target_side: "Target",
    no_group: "without a known group",
    nothing: "nothing",
    change: "change",
    name: "name",
    cost: "cost",
    save: "Save",
    delete: "Delete",
    more: "… and {n} more",
    open: "show",
    differences_below: "{n} differences here and below",
    calls: "Calls as they come",
    calls_shown: "The last 100, the newest first. Queries, headers and bodies are not kept.",
    no_calls: "No call yet.",
    time: "time (UTC)",
    side: "side",
    call: "call",
    status: "status",
    took: "took",
    lost: "connection broke",
    okki: "OKKI",
    target: "target",
    back: "Back",
    live: "This page follows what happens.",
    stopped: "The sandbox does not answer any more.",
    done: "Done.",
    bad_number: "That is not a number this field takes.",
    bad_cost: "A cost is digits, with up to six after the point, as in 2999.10.",
    bad_name: "A name has at most 500 characters.",
    gone: "This product is no longer there.",
    none_deleted: "No deleted product can be brought back.",
    bad_form: "This form is not one of the page's.",
    marks: ["the same", "missing at the target", "only at the target", "different", "not compared"],
};

static CHINESE: Words = Words {
    title: "沙箱",
    language: "语言",
    addresses: "本地的 OKKI 和本地的目标端。用 `okki-sync sandbox` 输出的环境变量运行 `okki-sync`，操作的就是您在此看到的内容。",
    try_it: "在 OKKI 侧改点什么，运行 `okki-sync plan`，再运行 `okki-sync sync`，看目标端如何跟上。",
    glance: "概览",
    groups: "OKKI 的分组",
    products: "OKKI 的产品",
    rows: "目标端的行",
    missing: "目标端缺失",
    extra: "仅目标端有",
    different: "不同",
    empty_target: "目标端是空的：请运行 `okki-sync sync`。",
    in_step: "两端一致。",
    people: "人们在 OKKI 中的操作",
    working_day: "模拟一个工作日的改动",
    import: "导入产品",
    how_many: "数量",
    restore: "恢复最近删除的产品",
    edits_per_minute: "每分钟改动数，持续进行",
    set: "设置",
    trouble: "制造故障与放慢",
    lock_okki: "锁定 OKKI",
    lock_target: "锁定目标端",
    revoke: "吊销所有 token",
    latency: "每个应答的耗时（毫秒）",
    break_next: "让接下来的调用出错",
    endpoint: "哪些调用",
    fault: "出什么错",
    times: "次数",
    waiting_faults: "有 {n} 个故障在等待调用。",
    mend: "全部恢复正常",
    both_sides: "两端对比",
    legend: "= 相同   + 目标端缺失   - 仅目标端有   * 不同   · 目标端没有这类行",
    okki_side: "OKKI",
    target_side: "目标端",
    no_group: "分组未知",
    nothing: "无",
    change: "修改",
    name: "名称",
    cost: "成本",
    save: "保存",
    delete: "删除",
    more: "…… 另有 {n} 项",
    open: "展开",
    differences_below: "此处及以下有 {n} 处差异",
    calls: "实时调用",
    calls_shown: "最近 100 次，最新的在前。不保留查询参数、请求头和正文。",
    no_calls: "还没有调用。",
    time: "时间（UTC）",
    side: "端",
    call: "调用",
    status: "状态",
    took: "耗时",
    lost: "连接中断",
    okki: "OKKI",
    target: "目标端",
    back: "返回",
    live: "本页随时更新。",
    stopped: "沙箱已不再应答。",
    done: "已完成。",
    bad_number: "此处不接受这样的数字。",
    bad_cost: "成本由数字组成，小数点后最多六位，例如 2999.10。",
    bad_name: "名称最多 500 个字符。",
    gone: "该产品已不存在。",
    none_deleted: "没有可以恢复的已删除产品。",
    bad_form: "本页没有这样的表单。",
    marks: ["相同", "目标端缺失", "仅目标端有", "不同", "不比较"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_what_the_browser_prefers() {
        assert_eq!(Lang::accepted("zh-CN,zh;q=0.9,en;q=0.8"), Lang::Zh);
        assert_eq!(Lang::accepted("fr, en;q=0.5, zh;q=0.7"), Lang::Zh);
        assert_eq!(Lang::accepted("de-DE, EN-us;q=0.5"), Lang::En);
        for unknown in ["", "fr", "zh;q=0", "q=,;;"] {
            assert_eq!(Lang::accepted(unknown), Lang::En, "{unknown}");
        }
    }
}
