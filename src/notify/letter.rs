//! Notices as each robot shows them: markdown for WeCom and DingTalk, a card for Feishu, and plain text where a robot
//! refuses these.

use serde_json::{Value, json};

use super::notice::{Notice, Topic};
use super::webhook::Robot;
use crate::words::{Lang, say};

/// WeCom takes 2,048 bytes of text and 4,096 of markdown. What markdown adds to so many is less than the rest.
const TEXT_BYTES: usize = 1_500;
/// Of the whole, a notice's address takes this much at most; a longer one is left out.
const LINK_BYTES: usize = 500;

/// What is told at one time.
#[derive(Debug)]
pub(super) struct Letter {
    parts: Vec<Part>,
    lang: Lang,
}

#[derive(Debug)]
struct Part {
    topic: Topic,
    title: String,
    lines: Vec<String>,
    link: Option<String>,
}

impl Letter {
    /// These notices, cut to what every robot takes.
    pub(super) fn of(notices: &[Notice], lang: Lang) -> Self {
        let mut left = TEXT_BYTES;
        let mut parts = Vec::new();
        for Notice { topic, title, lines, link, .. } in notices {
            let Some(title) = fit(title, &mut left) else { break };
            let lines = lines.iter().map_while(|line| fit(line, &mut left)).collect();
            // A run may have several notices; its report is linked once, at the first.
            let link = link.clone().filter(|link| link.len() <= LINK_BYTES);
            let link = link.filter(|link| parts.iter().all(|part: &Part| part.link.as_ref() != Some(link)));
            parts.push(Part { topic: *topic, title, lines, link });
        }
        Self { parts, lang }
    }

    /// The message in the form that the robot's group shows best.
    pub(super) fn rich(&self, robot: Robot) -> Value {
        match robot {
            Robot::WeCom => json!({ "msgtype": "markdown", "markdown": { "content": self.wecom() } }),
            Robot::DingTalk => json!({
                "msgtype": "markdown", "markdown": { "title": self.title(), "text": self.dingtalk() },
            }),
            Robot::Feishu => json!({ "msg_type": "interactive", "card": self.card() }),
        }
    }

    /// The message in the form that every robot knows.
    pub(super) fn plain(&self, robot: Robot) -> Value {
        let text = self.text();
        match robot {
            Robot::WeCom | Robot::DingTalk => json!({ "msgtype": "text", "text": { "content": text } }),
            Robot::Feishu => json!({ "msg_type": "text", "content": { "text": text } }),
        }
    }

    fn title(&self) -> &str {
        self.parts.first().map_or("okki-sync", |part| &part.title)
    }

    fn text(&self) -> String {
        let parts = self.parts.iter().map(|part| {
            let link =
                part.link.as_ref().map(|link| say!("open the report: {link}", link).in_language(self.lang));
            let lines = part.lines.iter().chain(&link).map(|line| format!("\n{line}"));
            part.title.clone() + &lines.collect::<String>()
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }

    fn wecom(&self) -> String {
        let parts = self.parts.iter().map(|part| {
            let color = if part.topic.is_bad() { "warning" } else { "info" };
            let lines = part.lines.iter().map(|line| format!("\n> {}", literal(line)));
            let title = format!("**<font color=\"{color}\">{}</font>**", literal(&part.title));
            title + &lines.collect::<String>() + &self.link(part, "\n")
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }

    fn dingtalk(&self) -> String {
        let parts = self.parts.iter().map(|part| {
            let lines = part.lines.iter().map(|line| format!("\n- {}", literal(line)));
            format!("#### {}\n", literal(&part.title)) + &lines.collect::<String>() + &self.link(part, "\n\n")
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }

    fn link(&self, part: &Part, before: &str) -> String {
        let link = part
            .link
            .as_ref()
            .map(|link| format!("{before}[{}]({link})", say!("open the report").in_language(self.lang)));
        link.unwrap_or_default()
    }

    fn card(&self) -> Value {
        let color = match self.parts.first().map(|part| part.topic) {
            Some(Topic::Failed) => "red",
            Some(topic) if topic.is_bad() => "orange",
            Some(Topic::Digest) => "blue",
            _ => "green",
        };
        let mut elements = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let lines = part.lines.iter().map(|line| literal(line));
            let title = (number > 0).then(|| format!("**{}**", literal(&part.title)));
            let text = title.into_iter().chain(lines).collect::<Vec<_>>().join("\n");
            elements.push(json!({ "tag": "div", "text": { "tag": "lark_md", "content": text } }));
            if let Some(link) = &part.link {
                let text =
                    json!({ "tag": "plain_text", "content": say!("open the report").in_language(self.lang) });
                let button = json!({ "tag": "button", "text": text, "url": link, "type": "default" });
                elements.push(json!({ "tag": "action", "actions": [button] }));
            }
        }
        let title = json!({ "tag": "plain_text", "content": self.title() });
        json!({ "header": { "title": title, "template": color }, "elements": elements })
    }
}

impl Topic {
    fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Stalled | Self::SetAside)
    }
}

/// The text, cut to what is left; `None` if nothing is.
fn fit(text: &str, left: &mut usize) -> Option<String> {
    // The line feeds between notices count too.
    let cost = text.len() + 2;
    if *left <= '…'.len_utf8() + 2 {
        *left = 0;
        return None;
    }
    if cost <= *left {
        *left -= cost;
        return Some(text.to_owned());
    }
    let end = text.floor_char_boundary(left.saturating_sub('…'.len_utf8() + 2));
    *left = 0;
    Some(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// Text that no markdown means anything in. The three robots know no escape that all of them take.
fn literal(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '*' => '＊',
            '`' => '｀',
            '[' => '［',
            ']' => '］',
            '~' => '～',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use insta::assert_snapshot;

    use super::super::tests::{Ran, Told};
    use super::*;
    use crate::error::ErrorKind;

    fn letter(lang: Lang, ran: Ran<'_>) -> Letter {
        let mut told = Told { robot_takes: false, ..Told::default() };
        told.settings.lang = lang;
        told.settings.report_url = Some("https://host/{connection}/{run_id}".to_owned());
        told.after(ran);
        Letter::of(&told.known.waiting, lang)
    }

    #[test]
    fn a_failure_reads_well_in_both_languages_and_calls_nobody() {
        assert_snapshot!(letter(Lang::Zh, Ran::Failed(ErrorKind::Store)).text(), @r"
        okki-sync 同步失败
        连接：acme
        开始时间：2026-01-02T00:00:00.000Z
        StoreUnavailable：it said ‹@all›
        运行：run-2
        查看运行报告：https://host/acme/run-2
        ");
        assert_snapshot!(letter(Lang::En, Ran::Failed(ErrorKind::Store)).text(), @r"
        okki-sync the sync fails
        connection: acme
        since: 2026-01-02T00:00:00.000Z
        StoreUnavailable: it said ‹@all›
        run: run-2
        open the report: https://host/acme/run-2
        ");
    }

    #[test]
    fn rows_are_named_and_their_names_are_no_markdown() {
        let rows = Ran::Well(&["1", "2", "3", "4", "5", "6"]);
        assert_snapshot!(letter(Lang::Zh, rows).text(), @r#"
        okki-sync 新增 6 行进入隔离区
        连接：acme
        隔离区现有行数：6
        产品 1 "螺丝 *M4*"：no group [x](y) ‹@all›
        产品 2 "螺丝 *M4*"：no group [x](y) ‹@all›
        产品 3 "螺丝 *M4*"：no group [x](y) ‹@all›
        产品 4 "螺丝 *M4*"：no group [x](y) ‹@all›
        产品 5 "螺丝 *M4*"：no group [x](y) ‹@all›
        另有 1 行
        运行：run-2
        查看运行报告：https://host/acme/run-2
        "#);
        assert_snapshot!(letter(Lang::En, Ran::Well(&["1"])).wecom(), @r#"
        **<font color="warning">okki-sync rows newly in the quarantine: 1</font>**
        > connection: acme
        > in the quarantine now: 1
        > product 1 "螺丝 ＊M4＊": no group ［x］(y) ‹@all›
        > run: run-2
        [open the report](https://host/acme/run-2)
        "#);
        assert_snapshot!(letter(Lang::Zh, Ran::Well(&["1"])).dingtalk(), @r#"
        #### okki-sync 新增 1 行进入隔离区

        - 连接：acme
        - 隔离区现有行数：1
        - 产品 1 "螺丝 ＊M4＊"：no group ［x］(y) ‹@all›
        - 运行：run-2

        [查看运行报告](https://host/acme/run-2)
        "#);
        assert_snapshot!(letter(Lang::Zh, Ran::Well(&["1"])).card(), @r#"{"header":{"title":{"tag":"plain_text","content":"okki-sync 新增 1 行进入隔离区"},"template":"orange"},"elements":[{"tag":"div","text":{"tag":"lark_md","content":"连接：acme\n隔离区现有行数：1\n产品 1 \"螺丝 ＊M4＊\"：no group ［x］(y) ‹@all›\n运行：run-2"}},{"tag":"action","actions":[{"tag":"button","text":{"tag":"plain_text","content":"查看运行报告"},"url":"https://host/acme/run-2","type":"default"}]}]}"#);
    }

    #[test]
    fn a_letter_is_never_longer_than_a_robot_takes() {
        for length in 480..500 {
            let notice = Notice {
                topic: Topic::Failed,
                urgent: true,
                title: "t".to_owned(),
                lines: vec!["错".repeat(length), "more".to_owned()],
                link: Some("l".repeat(LINK_BYTES + 1)),
                rows: Vec::new(),
            };
            let letter = Letter::of(&[notice.clone(), notice], Lang::En);
            assert!(letter.text().len() <= TEXT_BYTES, "{}", letter.text().len());
            assert!(letter.wecom().len() < 4_096);
        }
    }
}
