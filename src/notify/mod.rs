//! Notices to a chat robot (WeCom, DingTalk or Feishu): one when a connection starts to fail, one when it recovers.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{self, Answer, Request, TransportError, Wire};
use crate::report::{Mode, Report, Status};
use crate::store::{Store, paths};

/// All that a notice may take: two calls to the store and one to the robot.
pub(crate) const LIMIT: Duration = Duration::from_secs(6);
/// What the robot may take of it. There is one attempt: what failed for certain is told by the next run.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// DingTalk and WeCom take little more than 2,000 bytes.
const TEXT_BYTES: usize = 1_500;

/// Whose robot it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Robot {
    /// 企业微信.
    WeCom,
    /// 钉钉.
    DingTalk,
    /// 飞书, or Lark.
    Feishu,
}

impl Robot {
    /// Known by path and host; on this machine by the path alone, for tests.
    fn of(url: &Url) -> Option<Self> {
        const FEISHU: &str = "/open-apis/bot/v2/hook/";
        let (robot, hosts): (_, &[&str]) = match url.path() {
            "/cgi-bin/webhook/send" => (Self::WeCom, &["qyapi.weixin.qq.com"]),
            "/robot/send" => (Self::DingTalk, &["oapi.dingtalk.com"]),
            path if path.starts_with(FEISHU) => (Self::Feishu, &["open.feishu.cn", "open.larksuite.com"]),
            _ => return None,
        };
        let at_home = url.scheme() == "https" && url.host_str().is_some_and(|host| hosts.contains(&host));
        let here = matches!(url.scheme(), "http" | "https") && net::is_loopback(url);
        let robot = (at_home || here).then_some(robot)?;
        (!robot.key(url)?.is_empty()).then_some(robot)
    }

    /// The part of the address that lets anybody write to the group.
    fn key(self, url: &Url) -> Option<String> {
        let in_query = |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, key)| key.into_owned());
        match self {
            Self::WeCom => in_query("key"),
            Self::DingTalk => in_query("access_token"),
            Self::Feishu => url.path().rsplit('/').next().map(str::to_owned),
        }
    }
}

/// A robot's address. All of it is a secret: who knows it can write to the group.
#[derive(Clone)]
pub(crate) struct Webhook {
    robot: Robot,
    url: Url,
    secret: Option<SecretString>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("robot", &self.robot).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Reads the address; none if it is no known robot's. `secret` signs the calls of DingTalk and Feishu.
    pub(crate) fn parse(url: &SecretString, secret: Option<&SecretString>) -> Option<Self> {
        let url = Url::parse(url.expose_secret().trim()).ok()?;
        let secret = secret.map(|secret| SecretString::from(secret.expose_secret().trim()));
        Some(Self { robot: Robot::of(&url)?, url, secret })
    }

    fn request(&self, text: &str, now_ms: u64) -> Request {
        let mut url = self.url.clone();
        let body = match self.robot {
            Robot::WeCom | Robot::DingTalk => json!({ "msgtype": "text", "text": { "content": text } }),
            Robot::Feishu => match &self.secret {
                None => json!({ "msg_type": "text", "content": { "text": text } }),
                Some(secret) => {
                    let seconds = (now_ms / 1000).to_string();
                    let sign = feishu_sign(secret, &seconds);
                    json!({
                        "timestamp": seconds, "sign": sign, "msg_type": "text", "content": { "text": text },
                    })
                }
            },
        };
        if let (Robot::DingTalk, Some(secret)) = (self.robot, &self.secret) {
            let ms = now_ms.to_string();
            let sign = dingtalk_sign(secret, &ms);
            url.query_pairs_mut().append_pair("timestamp", &ms).append_pair("sign", &sign);
        }
        Request::post(url, body.to_string())
    }

    /// Sends one message, once.
    async fn send(&self, text: &str, now_ms: u64) -> Sent {
        let answer = match Wire::network(&self.url) {
            Ok(wire) => wire.send(self.request(text, now_ms), SEND_LIMIT).await,
            Err(lost) => Err(lost),
        };
        match answer {
            Ok(answer) => self.judge(&answer),
            Err(TransportError { message, not_sent: true, .. }) => Sent::Not(self.redacted(&message)),
            Err(lost) => Sent::Perhaps(self.redacted(&lost.message)),
        }
    }

    /// All three answer 200 whatever they mean; a code in the body says it.
    fn judge(&self, answer: &Answer) -> Sent {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = ["errcode", "code", "StatusCode"].iter().find_map(|name| body.get(name));
        if answer.status.is_success() && code.and_then(Value::as_i64) == Some(0) {
            return Sent::Taken;
        }
        let text = String::from_utf8_lossy(&answer.body);
        Sent::Not(format!("it answered HTTP {} {}", answer.status.as_u16(), self.redacted(&text)))
    }

    fn redacted(&self, text: &str) -> String {
        let hidden: Vec<SecretString> =
            [Some(self.url.to_string()), self.robot.key(&self.url), self.url.query().map(str::to_owned)]
                .into_iter()
                .flatten()
                .map(SecretString::from)
                .chain(self.secret.clone())
                .collect();
        net::excerpt(text, &hidden.iter().collect::<Vec<_>>())
    }
}

/// What became of a message.
enum Sent {
    Taken,
    /// Certainly not in the group: refused, or the robot was not reached.
    Not(String),
    /// No answer: it may be there.
    Perhaps(String),
}

fn signature(key: &str, message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, message.as_bytes()))
}

/// DingTalk: the secret is the key, time and secret are the message.
fn dingtalk_sign(secret: &SecretString, ms: &str) -> String {
    let secret = secret.expose_secret();
    signature(secret, &format!("{ms}\n{secret}"))
}

/// Feishu: time and secret are the key, and the message is empty.
fn feishu_sign(secret: &SecretString, seconds: &str) -> String {
    signature(&format!("{seconds}\n{}", secret.expose_secret()), "")
}

/// How a run ended, as far as notices go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did what it could.
    Well,
    /// An error that people should hear of.
    Failed(ErrorKind),
    /// Neither: the next run goes on, or another run is the truth.
    Otherwise,
}

impl Ended {
    /// How a sync run with this status and error ended.
    pub(crate) fn of(status: Status, kind: Option<ErrorKind>) -> Self {
        match (status, kind) {
            (Status::Succeeded | Status::Partial, _) => Self::Well,
            (Status::Failed, Some(ErrorKind::Busy | ErrorKind::StateConflict | ErrorKind::Interrupted)) => {
                Self::Otherwise
            }
            (Status::Failed, Some(kind)) => Self::Failed(kind),
            (Status::Failed, None) | (Status::Paused, _) => Self::Otherwise,
        }
    }
}

/// Whether a connection works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Condition {
    #[default]
    Well,
    Failed,
}

/// What the group knows of a connection, as the store keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    health: Condition,
    /// The error that was told last, by its name.
    kind: Option<String>,
    /// All that were told since it began to fail.
    #[serde(default)]
    told: Vec<String>,
    /// When this condition began: the start of the run that found it.
    since: String,
    run_id: String,
}

impl Health {
    fn after(&self, notice: Notice, ended: Ended, report: &Report) -> Self {
        let (health, kind) = match ended {
            Ended::Failed(kind) => (Condition::Failed, Some(kind.name().to_owned())),
            Ended::Well | Ended::Otherwise => (Condition::Well, None),
        };
        let goes_on = notice == Notice::FailedOtherwise;
        let mut told = if goes_on { self.told.clone() } else { Vec::new() };
        told.extend(kind.clone());
        let since = if goes_on { &self.since } else { &report.started_at };
        Self { health, kind, told, since: since.clone(), run_id: report.run_id.clone() }
    }

    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The connection began to fail.
    Failed,
    /// It still fails, with an error that was not told yet.
    FailedOtherwise,
    /// It works again.
    Recovered,
}

/// What a run has to tell to a group that knows `previous`: each error once until the connection works again.
pub(crate) fn decide(previous: &Health, ended: Ended) -> Option<Notice> {
    match (previous.health, ended) {
        (Condition::Well, Ended::Failed(_)) => Some(Notice::Failed),
        (Condition::Failed, Ended::Failed(kind)) => {
            (!previous.told.iter().any(|told| told == kind.name())).then_some(Notice::FailedOtherwise)
        }
        (Condition::Failed, Ended::Well) => Some(Notice::Recovered),
        (Condition::Well, Ended::Well) | (_, Ended::Otherwise) => None,
    }
}

/// The message. The program's name comes first: it can be the keyword that a DingTalk robot asks for.
fn text(notice: Notice, name: &str, since: &str, report: &Report) -> String {
    let (chinese, english) = match notice {
        Notice::Failed => ("同步失败", "The sync fails"),
        Notice::FailedOtherwise => {
            ("同步仍然失败，出现新的错误", "The sync still fails, now with another error")
        }
        Notice::Recovered => ("同步已恢复正常", "The sync works again"),
    };
    let began = match notice {
        Notice::Failed | Notice::FailedOtherwise => "开始时间 since",
        Notice::Recovered => "曾失败自 failed since",
    };
    let mut text = format!(
        "okki-sync {chinese}\n{english}\n连接 connection: {name}\n{began}: {since}\n运行 run: {}",
        report.run_id
    );
    if let (Notice::Failed | Notice::FailedOtherwise, Some(error)) = (notice, &report.error) {
        // A server's words stand in it: the robots read <@…> and <at …> as a call to somebody.
        text.push('\n');
        text.push_str(&error.replace('<', "‹").replace('>', "›"));
    }
    cut(text)
}

fn cut(text: String) -> String {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    let end = text.floor_char_boundary(TEXT_BYTES - '…'.len_utf8());
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Tells the group what it does not know yet of the connection `name`. What goes wrong is a warning in the log.
pub(crate) async fn tell(
    webhook: &Webhook,
    store: &Store,
    clock: Clock,
    name: &str,
    report: &Report,
    kind: Option<ErrorKind>,
) {
    let ended = match report.mode {
        Mode::Sync => Ended::of(report.status, kind),
        Mode::Plan | Mode::Verify => Ended::Otherwise,
    };
    if ended == Ended::Otherwise {
        return;
    }
    if let Err(error) = tell_news(webhook, store, clock, name, report, ended).await {
        tracing::warn!(error = %error.line(), "no notice can be sent: what was told already is not known");
    }
}

async fn tell_news(
    webhook: &Webhook,
    store: &Store,
    clock: Clock,
    name: &str,
    report: &Report,
    ended: Ended,
) -> Result<()> {
    let path = paths::notice(name);
    let (previous, read) = match store.load(&path).await? {
        // A record that cannot be read says nothing; it is replaced.
        Some((bytes, version)) => (serde_json::from_slice(&bytes).unwrap_or_default(), Some(version)),
        None => (Health::default(), None),
    };
    let Some(notice) = decide(&previous, ended) else { return Ok(()) };
    let health = previous.after(notice, ended, report);
    // Saved before it is sent: of two runs that end together only one tells.
    let ours = match store.save_if_unchanged(&path, health.bytes(), read.as_ref()).await {
        Ok(version) => version,
        Err(Error { kind: ErrorKind::StateConflict, .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let since = if notice == Notice::Recovered { &previous.since } else { &health.since };
    let robot = webhook.robot;
    match webhook.send(&text(notice, name, since, report), clock.now_ms()).await {
        Sent::Taken => tracing::info!(?robot, ?notice, "notice sent"),
        Sent::Perhaps(why) => {
            tracing::warn!(?robot, ?notice, why, "the robot did not answer; the notice is not sent again");
        }
        Sent::Not(why) => {
            tracing::warn!(?robot, ?notice, why, "the robot did not take the notice; the next run tells it");
            match store.save_if_unchanged(&path, previous.bytes(), Some(&ours)).await {
                Ok(_) | Err(Error { kind: ErrorKind::StateConflict, .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ::http::{HeaderMap, StatusCode};
    use insta::assert_snapshot;

    use super::*;
    use crate::error::Side;
    use crate::report::{PlanCounts, SourceCounts, TargetCounts};

    const SECRET: &str = "SECthis-is-a-secret";
    const WECOM: &str = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=hunter2-key";
    const DINGTALK: &str = "https://oapi.dingtalk.com/robot/send?access_token=hunter2-token";
    const FEISHU: &str = "https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook";

    fn webhook(url: &str, secret: Option<&str>) -> Option<Webhook> {
        Webhook::parse(&url.into(), secret.map(SecretString::from).as_ref())
    }

    fn report(status: Status, error: Option<&str>) -> Report {
        Report {
            run_id: "run-2".to_owned(),
            connection: "acme".to_owned(),
            mode: Mode::Sync,
            status,
            started_at: "2026-01-02T00:00:00.000Z".to_owned(),
            duration_ms: 1,
            source: SourceCounts::default(),
            plan: PlanCounts::default(),
            target: TargetCounts::default(),
            quarantined: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn signatures_are_those_of_the_documentations() {
        let secret = SecretString::from(SECRET);
        assert_eq!(dingtalk_sign(&secret, "1577808000123"), "bKaF0FUsLmhb44nRotI6xiRVlAdtrBoqqHCgq0V7lvA=");
        assert_eq!(feishu_sign(&secret, "1599360473"), "SBOcec7C6HAEqah4FgkwVsx72VL08fSQNBhI22N60CE=");
        assert_eq!(feishu_sign(&secret, "1577808000"), "LMDW86duYdDp7/eZgqVmVrrnAfy05yXPp1dxCz8SR0w=");
    }

    #[test]
    fn each_robot_gets_its_body_and_signature() {
        let sent = |url, secret| {
            let request = webhook(url, secret).unwrap().request("okki-sync \"好\"", 1_577_808_000_123);
            let body = String::from_utf8(request.body.unwrap().to_vec()).unwrap();
            format!("{}\n{body}", request.url)
        };
        assert_snapshot!(sent(WECOM, Some(SECRET)), @r#"
        https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=hunter2-key
        {"msgtype":"text","text":{"content":"okki-sync \"好\""}}
        "#);
        assert_snapshot!(sent(DINGTALK, None), @r#"
        https://oapi.dingtalk.com/robot/send?access_token=hunter2-token
        {"msgtype":"text","text":{"content":"okki-sync \"好\""}}
        "#);
        assert_snapshot!(sent(DINGTALK, Some(SECRET)), @r#"
        https://oapi.dingtalk.com/robot/send?access_token=hunter2-token&timestamp=1577808000123&sign=bKaF0FUsLmhb44nRotI6xiRVlAdtrBoqqHCgq0V7lvA%3D
        {"msgtype":"text","text":{"content":"okki-sync \"好\""}}
        "#);
        assert_snapshot!(sent(FEISHU, None), @r#"
        https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook
        {"msg_type":"text","content":{"text":"okki-sync \"好\""}}
        "#);
        assert_snapshot!(sent(FEISHU, Some(SECRET)), @r#"
        https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook
        {"timestamp":"1577808000","sign":"LMDW86duYdDp7/eZgqVmVrrnAfy05yXPp1dxCz8SR0w=","msg_type":"text","content":{"text":"okki-sync \"好\""}}
        "#);
    }

    #[test]
    fn a_robot_is_known_by_path_and_host() {
        let of = |url: &str| webhook(url, None).map(|webhook| webhook.robot);
        for (url, robot) in [
            (WECOM, Robot::WeCom),
            (DINGTALK, Robot::DingTalk),
            (FEISHU, Robot::Feishu),
            ("https://open.larksuite.com/open-apis/bot/v2/hook/x", Robot::Feishu),
            ("http://127.0.0.1:8080/cgi-bin/webhook/send?key=x", Robot::WeCom),
            ("http://localhost/robot/send?access_token=x", Robot::DingTalk),
            ("http://[::1]/open-apis/bot/v2/hook/x", Robot::Feishu),
            ("  https://open.feishu.cn/open-apis/bot/v2/hook/x\n", Robot::Feishu),
        ] {
            assert_eq!(of(url), Some(robot), "{url}");
        }
        for wrong in [
            "hunter2",
            "http://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x",
            "https://qyapi.weixin.qq.com/cgi-bin/webhook/send",
            "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=",
            "https://qyapi.weixin.qq.com/robot/send?access_token=x",
            "https://oapi.dingtalk.com/robot/send?key=x",
            "https://oapi.dingtalk.com@example.com/robot/send?access_token=x",
            "https://open.feishu.cn/open-apis/bot/v2/hook/",
            "https://open.feishu.cn/open-apis/bot/hook/x",
            "https://127.0.0.1.example.com/robot/send?access_token=x",
            "ftp://127.0.0.1/robot/send?access_token=x",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_answer_counts_by_its_code_and_its_echo_is_not_shown() {
        let webhook = webhook(DINGTALK, Some(SECRET)).unwrap();
        let judged = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let body = Bytes::copy_from_slice(body.as_bytes());
            match webhook.judge(&Answer { status, headers: HeaderMap::new(), body }) {
                Sent::Taken => "taken".to_owned(),
                Sent::Not(why) | Sent::Perhaps(why) => why,
            }
        };
        for taken in [r#"{"errcode":0,"errmsg":"ok"}"#, r#"{"code":0}"#, r#"{"StatusCode":0}"#] {
            assert_eq!(judged(200, taken), "taken");
        }
        assert_snapshot!(judged(200, r#"{"errcode":310000,"errmsg":"keywords not in content"}"#), @r#"it answered HTTP 200 {"errcode":310000,"errmsg":"keywords not in content"}"#);
        assert_snapshot!(judged(200, "<html>"), @"it answered HTTP 200 <html>");
        assert_snapshot!(judged(500, r#"{"errcode":0}"#), @r#"it answered HTTP 500 {"errcode":0}"#);
        let echo = format!("no {DINGTALK} hunter2-token {SECRET}");
        assert_snapshot!(judged(403, &echo), @"it answered HTTP 403 no … … …");
        assert_eq!(format!("{webhook:?}"), "Webhook { robot: DingTalk, .. }");
    }

    #[test]
    fn each_error_is_told_once_until_the_connection_works_again() {
        let failed = |told: &[&str]| Health {
            health: Condition::Failed,
            told: told.iter().map(|&told| told.to_owned()).collect(),
            ..Health::default()
        };
        let store = Ended::of(Status::Failed, Some(ErrorKind::Store));
        let guard = Ended::of(Status::Failed, Some(ErrorKind::GuardRefused));
        let well = Ended::of(Status::Partial, None);
        for (previous, ended, expected) in [
            (Health::default(), well, None),
            (Health::default(), store, Some(Notice::Failed)),
            (failed(&["StoreUnavailable"]), store, None),
            (failed(&["StoreUnavailable"]), guard, Some(Notice::FailedOtherwise)),
            (failed(&["StoreUnavailable", "GuardRefused"]), store, None),
            (failed(&["StoreUnavailable", "GuardRefused"]), guard, None),
            (failed(&["StoreUnavailable"]), Ended::of(Status::Succeeded, None), Some(Notice::Recovered)),
            (failed(&["StoreUnavailable"]), Ended::of(Status::Paused, None), None),
            (Health::default(), Ended::of(Status::Paused, Some(ErrorKind::Throttled(Side::Target))), None),
            (Health::default(), Ended::of(Status::Failed, Some(ErrorKind::Busy)), None),
            (Health::default(), Ended::of(Status::Failed, Some(ErrorKind::StateConflict)), None),
        ] {
            assert_eq!(decide(&previous, ended), expected, "{previous:?} {ended:?}");
        }
    }

    #[test]
    fn the_record_remembers_since_when_and_what_was_told() {
        let (one, other) = (Ended::Failed(ErrorKind::Store), Ended::Failed(ErrorKind::GuardRefused));
        let mut earlier = report(Status::Failed, None);
        "2026-01-01T00:00:00.000Z".clone_into(&mut earlier.started_at);
        let first = Health::default().after(Notice::Failed, one, &earlier);
        let second = first.after(Notice::FailedOtherwise, other, &report(Status::Failed, None));
        assert_snapshot!(String::from_utf8(second.bytes().to_vec()).unwrap(), @r#"{"health":"failed","kind":"GuardRefused","told":["StoreUnavailable","GuardRefused"],"since":"2026-01-01T00:00:00.000Z","run_id":"run-2"}"#);
        let well = second.after(Notice::Recovered, Ended::Well, &report(Status::Succeeded, None));
        assert_snapshot!(String::from_utf8(well.bytes().to_vec()).unwrap(), @r#"{"health":"well","kind":null,"told":[],"since":"2026-01-02T00:00:00.000Z","run_id":"run-2"}"#);
    }

    #[test]
    fn the_message_is_clear_short_and_calls_nobody() {
        let failed = report(Status::Failed, Some("SourceUnavailable: it said <@all>"));
        assert_snapshot!(text(Notice::Failed, "acme", &failed.started_at, &failed), @r"
        okki-sync 同步失败
        The sync fails
        连接 connection: acme
        开始时间 since: 2026-01-02T00:00:00.000Z
        运行 run: run-2
        SourceUnavailable: it said ‹@all›
        ");
        assert_snapshot!(text(Notice::Recovered, "acme", "2026-01-01T00:00:00.000Z", &report(Status::Succeeded, None)), @r"
        okki-sync 同步已恢复正常
        The sync works again
        连接 connection: acme
        曾失败自 failed since: 2026-01-01T00:00:00.000Z
        运行 run: run-2
        ");
        for length in 480..490 {
            let long = text(Notice::Failed, "a", "b", &report(Status::Failed, Some(&"错".repeat(length))));
            assert!(long.len() <= TEXT_BYTES && long.ends_with('…'), "{}", long.len());
        }
        assert_eq!(cut("a".repeat(TEXT_BYTES)), "a".repeat(TEXT_BYTES));
    }
}
