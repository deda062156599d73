//! Credentials, from the environment or from the JSON of a secret. They are never shown.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::config::{Endpoint, Env, TargetAuth};
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::notify::Webhook;
use crate::words::{Message, say};

/// The variables that every pipeline can do without: they turn on notices.
#[cfg(feature = "cli")]
pub(crate) const OPTIONAL: [&str; 2] = ["NOTIFY_WEBHOOK", "NOTIFY_SECRET"];

/// What the two sides want to see. Blank counts as missing: see [`Credentials::require`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// `OKKI_CLIENT_ID`.
    pub okki_client_id: SecretString,
    /// `OKKI_CLIENT_SECRET`.
    pub okki_client_secret: SecretString,
    /// `QEASY_APP_KEY`, for targets of kind `qeasy`.
    pub qeasy_app_key: Option<SecretString>,
    /// `QEASY_APP_SECRET`, for targets of kind `qeasy`.
    pub qeasy_app_secret: Option<SecretString>,
    /// `TARGET_TOKEN`, for targets of kind `http` with `auth = "bearer"`.
    pub target_token: Option<SecretString>,
    /// Where notices go.
    pub notify: Notify,
}

/// The robot that notices go to: `NOTIFY_WEBHOOK` and `NOTIFY_SECRET`. No run fails because of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notify {
    webhook: Option<SecretString>,
    secret: Option<SecretString>,
    /// A field that is no text; it counts as a mistake, not as missing.
    wrong: Option<&'static str>,
}

impl Notify {
    /// What the environment says.
    pub(crate) fn from_env(env: &Env) -> Self {
        let get = |name: &str| env.get(name).map(SecretString::from);
        Self { webhook: get("NOTIFY_WEBHOOK"), secret: get("NOTIFY_SECRET"), wrong: None }
    }

    fn from_fields(fields: &Map<String, Value>) -> Self {
        let mut wrong = None;
        let mut get = |name: &str, variable| match field(fields, name) {
            Ok(value) => value.filter(|value| !is_blank(Some(value))),
            Err(_) => {
                wrong = wrong.or(Some(variable));
                None
            }
        };
        let (webhook, secret) =
            (get("notify_webhook", "NOTIFY_WEBHOOK"), get("notify_secret", "NOTIFY_SECRET"));
        Self { webhook, secret, wrong }
    }

    /// The same, with what it lacks from another place.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            webhook: self.webhook.or(other.webhook),
            secret: self.secret.or(other.secret),
            wrong: self.wrong.or(other.wrong),
        }
    }

    /// Whether nobody asked for notices.
    pub(crate) fn is_none(&self) -> bool {
        self.webhook.is_none() && self.wrong.is_none()
    }

    /// The robot; `None` if nobody asked for one.
    pub(crate) fn webhook(&self) -> Result<Option<Webhook>, Diagnostic> {
        if let Some(variable) = self.wrong {
            return Err(Diagnostic {
                place: say!("credentials {variable}", variable).to_string(),
                message: say!("is not a string"),
                help: say!(
                    "put the value of the secret's field {variable} in quotes",
                    variable = variable.to_lowercase()
                ),
            });
        }
        let Some(url) = &self.webhook else { return Ok(None) };
        Webhook::parse(url, self.secret.as_ref()).map(Some).ok_or_else(|| Diagnostic {
            place: "credentials NOTIFY_WEBHOOK".to_owned(),
            message: say!("is not the address of a WeCom, DingTalk or Feishu robot"),
            help: say!("copy it whole from the robot's settings, https:// and key included, or remove it"),
        })
    }
}

impl Credentials {
    /// The credentials in the environment; what is not set stays blank.
    pub(crate) fn from_env(env: &Env) -> Self {
        let get = |name: &str| env.get(name).map(SecretString::from);
        Self {
            okki_client_id: get("OKKI_CLIENT_ID").unwrap_or_default(),
            okki_client_secret: get("OKKI_CLIENT_SECRET").unwrap_or_default(),
            qeasy_app_key: get("QEASY_APP_KEY"),
            qeasy_app_secret: get("QEASY_APP_SECRET"),
            target_token: get("TARGET_TOKEN"),
            notify: Notify::from_env(env),
        }
    }

    /// The credentials in a secret's JSON: the variables' names in lower case. Other fields are ignored.
    ///
    /// The JSON is taken apart by hand because serde's messages repeat what they stumble over.
    pub(crate) fn from_secret_json(json: &SecretString) -> Result<Self> {
        let value: Value =
            serde_json::from_str(json.expose_secret()).map_err(|_| bad(say!("is not JSON")))?;
        let Value::Object(fields) = value else { return Err(bad(say!("is not a JSON object"))) };
        Ok(Self {
            okki_client_id: field(&fields, "okki_client_id")?.unwrap_or_default(),
            okki_client_secret: field(&fields, "okki_client_secret")?.unwrap_or_default(),
            qeasy_app_key: field(&fields, "qeasy_app_key")?,
            qeasy_app_secret: field(&fields, "qeasy_app_secret")?,
            target_token: field(&fields, "target_token")?,
            notify: Notify::from_fields(&fields),
        })
    }

    /// What this target needs and is not there.
    pub(crate) fn require(&self, target: &Endpoint) -> Vec<Diagnostic> {
        let values = [
            ("OKKI_CLIENT_ID", Some(&self.okki_client_id)),
            ("OKKI_CLIENT_SECRET", Some(&self.okki_client_secret)),
            ("QEASY_APP_KEY", self.qeasy_app_key.as_ref()),
            ("QEASY_APP_SECRET", self.qeasy_app_secret.as_ref()),
            ("TARGET_TOKEN", self.target_token.as_ref()),
        ];
        let needed = needed(target);
        values
            .into_iter()
            .filter(|(name, value)| needed.contains(name) && is_blank(*value))
            .map(|(name, _)| missing(name))
            .collect()
    }
}

/// The variables without which a pipeline with this target cannot run.
pub(crate) fn needed(target: &Endpoint) -> &'static [&'static str] {
    match target {
        Endpoint::Qeasy { .. } => {
            &["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET"]
        }
        Endpoint::Http { auth: TargetAuth::Bearer, .. } => {
            &["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "TARGET_TOKEN"]
        }
        Endpoint::Http { auth: TargetAuth::None, .. } => &["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET"],
    }
}

fn is_blank(value: Option<&SecretString>) -> bool {
    value.is_none_or(|value| value.expose_secret().trim().is_empty())
}

fn missing(variable: &str) -> Diagnostic {
    let field = variable.to_lowercase();
    Diagnostic {
        place: say!("credentials {variable}", variable).to_string(),
        message: say!("is missing"),
        help: say!(
            "set {variable}, or the field {field} of the secret that OKKI_SYNC_SECRET names",
            variable,
            field
        ),
    }
}

fn field(fields: &Map<String, Value>, name: &str) -> Result<Option<SecretString>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(SecretString::from(text.as_str()))),
        Some(_) => Err(Error::new(
            ErrorKind::MissingCredentials,
            say!("the secret's field {name} is not a string", name),
        )
        .help(say!("put its value in quotes"))),
    }
}

fn bad(what: Message) -> Error {
    Error::new(ErrorKind::MissingCredentials, say!("the secret that OKKI_SYNC_SECRET names {what}", what))
        .help(say!("write {\"okki_client_id\": \"…\", \"okki_client_secret\": \"…\", …}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use insta::assert_snapshot;

    use super::*;
    use crate::config;

    fn target(text: &str) -> Endpoint {
        config::parse(text, "p.toml", &Env::of::<&str, &str>([])).unwrap().target.endpoint
    }

    fn required(credentials: &Credentials, text: &str) -> String {
        let mistakes = credentials.require(&target(text));
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_kind_needs_its_own() {
        let none = Credentials { okki_client_secret: " ".into(), ..Credentials::default() };
        assert_snapshot!(required(&none, "[target]\nkind = \"qeasy\"\nscheme_id = \"s\""), @r"
        credentials OKKI_CLIENT_ID: is missing; set OKKI_CLIENT_ID, or the field okki_client_id of the secret that OKKI_SYNC_SECRET names
        credentials OKKI_CLIENT_SECRET: is missing; set OKKI_CLIENT_SECRET, or the field okki_client_secret of the secret that OKKI_SYNC_SECRET names
        credentials QEASY_APP_KEY: is missing; set QEASY_APP_KEY, or the field qeasy_app_key of the secret that OKKI_SYNC_SECRET names
        credentials QEASY_APP_SECRET: is missing; set QEASY_APP_SECRET, or the field qeasy_app_secret of the secret that OKKI_SYNC_SECRET names
        ");
        let okki = Credentials::from_env(&Env::of([("OKKI_CLIENT_ID", "a"), ("OKKI_CLIENT_SECRET", "b")]));
        let http = "[target]\nkind = \"http\"\nurl = \"https://host/x\"\n";
        assert_eq!(required(&okki, http), "");
        assert_snapshot!(required(&okki, &format!("{http}auth = \"bearer\"")), @"credentials TARGET_TOKEN: is missing; set TARGET_TOKEN, or the field target_token of the secret that OKKI_SYNC_SECRET names");
    }

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let json = r#"{"okki_client_id": "hunter2", "okki_client_secret": "hunter2", "target_token": "hunter2", "qeasy_app_key": null, "else": 5}"#;
        let credentials = Credentials::from_secret_json(&json.into()).unwrap();
        assert_eq!(credentials.okki_client_secret.expose_secret(), "hunter2");
        assert!(credentials.qeasy_app_key.is_none());
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn a_robot_comes_from_secret_or_environment_and_a_wrong_one_is_a_mistake() {
        let robot = "https://oapi.dingtalk.com/robot/send?access_token=hunter2";
        let of = |json: &str, env: &[(&str, &str)]| {
            let secret = Credentials::from_secret_json(&json.into()).unwrap().notify;
            let notify = secret.or(Notify::from_env(&Env::of(env.iter().copied())));
            assert!(!format!("{notify:?}").contains("hunter2"));
            match notify.webhook() {
                Ok(webhook) => format!("{webhook:?}"),
                Err(mistake) => mistake.to_string(),
            }
        };
        let both = [("NOTIFY_WEBHOOK", robot), ("NOTIFY_SECRET", "hunter2")];
        assert_eq!(of("{}", &[]), "None");
        assert_eq!(of("{}", &both), "Some(Webhook { robot: DingTalk, .. })");
        assert_eq!(of(r#"{"notify_webhook": " ", "notify_secret": null}"#, &both), of("{}", &both));
        assert_eq!(of(&format!("{{\"notify_webhook\": \"{robot}\"}}"), &[]), of("{}", &both));
        assert_snapshot!(of(r#"{"notify_webhook": ["hunter2"]}"#, &both), @"credentials NOTIFY_WEBHOOK: is not a string; put the value of the secret's field notify_webhook in quotes");
        assert_snapshot!(of(r#"{"notify_secret": 5}"#, &both), @"credentials NOTIFY_SECRET: is not a string; put the value of the secret's field notify_secret in quotes");
        assert_snapshot!(of(r#"{"notify_webhook": "https://example.com/hunter2"}"#, &both), @"credentials NOTIFY_WEBHOOK: is not the address of a WeCom, DingTalk or Feishu robot; copy it whole from the robot's settings, https:// and key included, or remove it");
    }

    #[test]
    fn a_secret_of_another_form_names_the_field_and_no_value() {
        for (json, expected) in [
            ("hunter2", "is not JSON"),
            ("[\"hunter2\"]", "is not a JSON object"),
            (r#"{"okki_client_id": 424242}"#, "field okki_client_id is not a string"),
            (r#"{"target_token": ["hunter2"]}"#, "field target_token is not a string"),
        ] {
            let error = Credentials::from_secret_json(&json.into()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::MissingCredentials);
            assert!(error.to_string().contains(expected), "{}", error.message);
            assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("424242"));
        }
    }
}
