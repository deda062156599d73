//! The three chat robots: how each is known by its address, what it is sent, and what its answer means.
//!
//! There is one attempt for each message, and a second one in plain text where a robot refuses markdown or a card.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::letter::Letter;
use crate::net::{self, Answer, Request, TransportError, Wire};

/// What the robot may take of [`super::LIMIT`].
const SEND_LIMIT: Duration = Duration::from_secs(5);

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
    /// Knows it by path and host; on this machine by the path alone, for tests.
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

/// A robot's address. All of it is secret: whoever knows it can write to the group.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(super) robot: Robot,
    url: Url,
    secret: Option<SecretString>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("robot", &self.robot).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Reads the address; `None` if it is not a known robot's. `secret` signs the calls of DingTalk and Feishu.
    pub(crate) fn parse(url: &SecretString, secret: Option<&SecretString>) -> Option<Self> {
        let url = Url::parse(url.expose_secret().trim()).ok()?;
        let secret = secret.map(|secret| SecretString::from(secret.expose_secret().trim()));
        Some(Self { robot: Robot::of(&url)?, url, secret })
    }

    fn request(&self, mut body: Value, now_ms: u64) -> Request {
        let mut url = self.url.clone();
        match (self.robot, &self.secret) {
            (Robot::DingTalk, Some(secret)) => {
                let ms = now_ms.to_string();
                let sign = dingtalk_sign(secret, &ms);
                url.query_pairs_mut().append_pair("timestamp", &ms).append_pair("sign", &sign);
            }
            (Robot::Feishu, Some(secret)) => {
                let seconds = (now_ms / 1000).to_string();
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("sign".to_owned(), feishu_sign(secret, &seconds).into());
                    fields.insert("timestamp".to_owned(), seconds.into());
                }
            }
            _ => {}
        }
        Request::post(url, body.to_string())
    }

    /// Sends one message: as markdown or a card, and once more as plain text if the robot refuses that.
    pub(super) async fn send(&self, letter: &Letter, now_ms: u64) -> Sent {
        let began = Instant::now();
        let sent = self.post(letter.rich(self.robot), now_ms, SEND_LIMIT).await;
        let Sent::Refused(why) = sent else { return sent };
        tracing::info!(robot = ?self.robot, why, "the robot refused a message with form; it gets plain text");
        let left = SEND_LIMIT.saturating_sub(began.elapsed());
        self.post(letter.plain(self.robot), now_ms, left).await
    }

    async fn post(&self, body: Value, now_ms: u64, limit: Duration) -> Sent {
        let answer = match Wire::network(&self.url) {
            Ok(wire) => wire.send(self.request(body, now_ms), limit).await,
            Err(lost) => Err(lost),
        };
        match answer {
            Ok(answer) => self.judge(&answer),
            Err(TransportError { message, not_sent: true, .. }) => Sent::Not(self.redacted(&message)),
            Err(lost) => Sent::Perhaps(self.redacted(&lost.message)),
        }
    }

    /// All three answer HTTP 200 in any case; a code in the body says whether they took the message. Feishu may answer
    /// HTTP 400 to a card.
    fn judge(&self, answer: &Answer) -> Sent {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code =
            ["errcode", "code", "StatusCode"].iter().find_map(|name| body.get(name)).and_then(Value::as_i64);
        if answer.status.is_success() && code == Some(0) {
            return Sent::Taken;
        }
        let text = String::from_utf8_lossy(&answer.body);
        let why = format!("it answered HTTP {} {}", answer.status.as_u16(), self.redacted(&text));
        let is_refusal = (answer.status.is_success() && code.is_some()) || answer.status.as_u16() == 400;
        if is_refusal { Sent::Refused(why) } else { Sent::Not(why) }
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
pub(super) enum Sent {
    Taken,
    /// Certainly not in the group: the robot said no to it.
    Refused(String),
    /// Certainly not in the group: the robot is broken, or was not reached.
    Not(String),
    /// Perhaps in the group: there was no answer.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ::http::{HeaderMap, StatusCode};
    use bytes::Bytes;
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "SECthis-is-a-secret";
    const WECOM: &str = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=hunter2-key";
    const DINGTALK: &str = "https://oapi.dingtalk.com/robot/send?access_token=hunter2-token";
    const FEISHU: &str = "https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook";

    fn webhook(url: &str, secret: Option<&str>) -> Option<Webhook> {
        Webhook::parse(&url.into(), secret.map(SecretString::from).as_ref())
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
            let body = json!({ "text": "okki-sync \"好\"" });
            let request = webhook(url, secret).unwrap().request(body, 1_577_808_000_123);
            let body = String::from_utf8(request.body.unwrap().to_vec()).unwrap();
            format!("{}\n{body}", request.url)
        };
        assert_snapshot!(sent(WECOM, Some(SECRET)), @r#"
        https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=hunter2-key
        {"text":"okki-sync \"好\""}
        "#);
        assert_snapshot!(sent(DINGTALK, None), @r#"
        https://oapi.dingtalk.com/robot/send?access_token=hunter2-token
        {"text":"okki-sync \"好\""}
        "#);
        assert_snapshot!(sent(DINGTALK, Some(SECRET)), @r#"
        https://oapi.dingtalk.com/robot/send?access_token=hunter2-token&timestamp=1577808000123&sign=bKaF0FUsLmhb44nRotI6xiRVlAdtrBoqqHCgq0V7lvA%3D
        {"text":"okki-sync \"好\""}
        "#);
        assert_snapshot!(sent(FEISHU, None), @r#"
        https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook
        {"text":"okki-sync \"好\""}
        "#);
        assert_snapshot!(sent(FEISHU, Some(SECRET)), @r#"
        https://open.feishu.cn/open-apis/bot/v2/hook/hunter2-hook
        {"text":"okki-sync \"好\"","sign":"LMDW86duYdDp7/eZgqVmVrrnAfy05yXPp1dxCz8SR0w=","timestamp":"1577808000"}
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
                Sent::Refused(why) => format!("refused: {why}"),
                Sent::Not(why) | Sent::Perhaps(why) => why,
            }
        };
        for taken in [r#"{"errcode":0,"errmsg":"ok"}"#, r#"{"code":0}"#, r#"{"StatusCode":0}"#] {
            assert_eq!(judged(200, taken), "taken");
        }
        assert_snapshot!(judged(200, r#"{"errcode":310000,"errmsg":"keywords not in content"}"#), @r#"refused: it answered HTTP 200 {"errcode":310000,"errmsg":"keywords not in content"}"#);
        assert_snapshot!(judged(200, "<html>"), @"it answered HTTP 200 <html>");
        assert_snapshot!(judged(500, r#"{"errcode":0}"#), @r#"it answered HTTP 500 {"errcode":0}"#);
        let echo = format!("no {DINGTALK} hunter2-token {SECRET}");
        assert_snapshot!(judged(403, &echo), @"it answered HTTP 403 no … … …");
        assert_eq!(format!("{webhook:?}"), "Webhook { robot: DingTalk, .. }");
    }
}
