//! Warm connections: built from a pipeline and its credentials, refreshed when either changes or a side refuses them.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use secrecy::ExposeSecret as _;

use super::pipelines::{PipelineFile, PipelineSource};
use super::{App, wiring};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::credentials::{Credentials, Notify};
use crate::error::{Error, ErrorKind, Result};
use crate::net::Wire;
use crate::net::limit::Pace;
use crate::okki::Okki;
use crate::store::limits::AccountLimits;
use crate::targets::Target;
use crate::words::{Message, say};

/// A secret is read again after this long, so that a rotation takes effect even if nobody refuses the old one.
const CREDENTIALS_KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// In `OKKI_SYNC_SECRET`, stands for the connection's name: one secret per connection.
const CONNECTION_PLACEHOLDER: &str = "{connection}";

/// A connection that is ready to run. It stays warm from run to run: open sockets, tokens, the compiled pipeline.
pub(super) struct Connection {
    pub(super) config: Config,
    /// The pipeline file's text: another text means another `Connection`.
    text: String,
    pub(super) okki: Okki,
    /// The pace of the source's account.
    pub(super) source_pace: Arc<Pace>,
    pub(super) target: Target,
    /// The limits of the target's account.
    pub(super) limits: Arc<AccountLimits>,
    /// Those of the two sides; the robot's are in `refreshed`.
    pub(super) credentials: Credentials,
    refreshed: std::sync::Mutex<Refreshed>,
}

/// What a new look at the secret changes while the connection stays warm.
struct Refreshed {
    /// When the credentials were last read, wall-clock milliseconds: a frozen environment stops the timer, and a secret
    /// grows old there all the same.
    at_ms: u64,
    notify: Notify,
}

impl Refreshed {
    fn now(clock: Clock, notify: Notify) -> std::sync::Mutex<Self> {
        std::sync::Mutex::new(Self { at_ms: clock.now_ms(), notify })
    }
}

impl Connection {
    /// A time in the future comes from a clock that was set back.
    fn is_fresh(&self, clock: Clock) -> bool {
        let age_ms = |at_ms| clock.now_ms().checked_sub(at_ms).map(u128::from);
        let read_at_ms = self.refreshed.lock().map(|refreshed| refreshed.at_ms).ok();
        read_at_ms.and_then(age_ms).is_some_and(|age_ms| age_ms < CREDENTIALS_KEPT_FOR.as_millis())
    }

    /// No token depends on the robot: its address changes under a warm connection.
    fn refresh(&self, clock: Clock, notify: Notify) {
        if let Ok(mut refreshed) = self.refreshed.lock() {
            *refreshed = Refreshed { at_ms: clock.now_ms(), notify };
        }
    }

    /// The robot, as the secret named it when it was last read.
    pub(super) fn notify(&self) -> Notify {
        self.refreshed.lock().map(|refreshed| refreshed.notify.clone()).unwrap_or_default()
    }
}

/// Credentials that are read while the pipeline is still being fetched.
pub(super) enum ReadAhead {
    /// Each connection has its own: its name is needed first.
    NotPossible,
    Done(Result<Credentials>),
}

impl App {
    pub(super) async fn aws(&self) -> &SdkConfig {
        self.aws.get_or_init(crate::net::aws::load).await
    }

    pub(super) async fn credentials(&self, connection: &str) -> Result<Credentials> {
        match self.env.secret() {
            None => Ok(Credentials::from_env(&self.env)),
            Some(id) => {
                let id = id.replace(CONNECTION_PLACEHOLDER, connection);
                let json = crate::net::aws::secret(self.aws().await, &id).await?;
                let known = Credentials::from_secret_json(&json)?;
                Ok(Credentials { notify: known.notify.or(Notify::from_env(&self.env)), ..known })
            }
        }
    }

    /// Reads the credentials before the pipeline is known, where all connections share them.
    pub(super) async fn read_credentials_ahead(&self) -> ReadAhead {
        if self.env.secret().is_some_and(|id| id.contains(CONNECTION_PLACEHOLDER)) {
            return ReadAhead::NotPossible;
        }
        ReadAhead::Done(self.credentials("").await)
    }

    /// The warm connection, or a new one if its pipeline or its credentials changed.
    pub(super) async fn connection(&self, from: &PipelineSource) -> Result<Arc<Connection>> {
        let file = self.pipeline_file(from).await?;
        self.connection_from(file, ReadAhead::NotPossible).await
    }

    /// [`Self::connection`] for a pipeline file that is at hand.
    pub(super) async fn connection_from(
        &self,
        file: PipelineFile,
        credentials: ReadAhead,
    ) -> Result<Arc<Connection>> {
        let warm =
            self.connections.lock().await.get(&file.key).filter(|warm| warm.text == file.text).cloned();
        if let Some(warm) = warm.as_ref().filter(|warm| warm.is_fresh(self.clock)) {
            return Ok(Arc::clone(warm));
        }
        let config = self.config_of(&file)?;
        let credentials = match credentials {
            ReadAhead::Done(read) => read?,
            ReadAhead::NotPossible => self.credentials(&config.connection).await?,
        };
        // The same credentials: tokens and connections stay warm.
        if let Some(warm) = warm.filter(|warm| same_credentials(&warm.credentials, &credentials)) {
            warm.refresh(self.clock, credentials.notify);
            return Ok(warm);
        }
        let connection = Arc::new(self.build(config, file.text, credentials)?);
        self.connections.lock().await.insert(file.key, Arc::clone(&connection));
        Ok(connection)
    }

    /// A new connection with the secret as it is now. `None` if it is still the one that was refused.
    pub(super) async fn refreshed(&self, from: &PipelineSource, old: &Connection) -> Option<Arc<Connection>> {
        let file = self.pipeline_file(from).await.ok()?;
        self.connections.lock().await.remove(&file.key);
        let renewed = self.connection(from).await.ok()?;
        (!same_credentials(&renewed.credentials, &old.credentials)).then_some(renewed)
    }

    fn build(&self, config: Config, text: String, credentials: Credentials) -> Result<Connection> {
        let missing = credentials.require(&config.target.endpoint);
        if let Some(first) = missing.first() {
            let more = if missing.len() > 1 {
                say!(" (and {missing} more: okki-sync check lists all)", missing = missing.len() - 1)
            } else {
                Message::plain("")
            };
            return Err(Error::new(ErrorKind::MissingCredentials, say!("{first}{more}", first, more)));
        }
        let source = wiring::source(&config, &credentials);
        let source_wire = self.wire(self.wires.source.as_ref(), &source.base_url)?;
        let source_pace = self.accounts.source(&source, &config.connection, &self.store, self.clock);
        let okki = Okki::new(source, Arc::clone(&source_pace), source_wire, self.clock)?;
        let target = wiring::target(&config, &credentials);
        let target_wire = self.wire(self.wires.target.as_ref(), target.address())?;
        let limits = self.accounts.target(&target, &config.connection, self.clock);
        let pace = wiring::target_pace(&config, &limits);
        let target = Target::new(target, config.rows.id_name(), pace, target_wire, self.clock)?;
        Ok(Connection {
            config,
            text,
            okki,
            source_pace,
            target,
            limits,
            refreshed: Refreshed::now(self.clock, credentials.notify.clone()),
            credentials,
        })
    }

    pub(super) fn wire(&self, given: Option<&Wire>, to: &url::Url) -> Result<Wire> {
        match given {
            Some(wire) => Ok(wire.clone()),
            None => self.network.wire(to).map_err(|lost| Error::new(ErrorKind::BadPipeline, lost.message)),
        }
    }
}

fn same_credentials(a: &Credentials, b: &Credentials) -> bool {
    let all = |c: &Credentials| {
        [
            Some(&c.okki_client_id),
            Some(&c.okki_client_secret),
            c.qeasy_app_key.as_ref(),
            c.qeasy_app_secret.as_ref(),
            c.target_token.as_ref(),
        ]
        .map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
    };
    all(a) == all(b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use secrecy::SecretString;

    use super::*;
    use crate::app::Wires;
    use crate::config::Env;

    const PIPELINE: &str = "[target]\nkind = \"qeasy\"\nscheme_id = \"s\"";

    fn secret(app_key: &str, robot: &str) -> ReadAhead {
        let fields = format!(
            r#"{{"okki_client_id": "i", "okki_client_secret": "s", "qeasy_app_key": "{app_key}", "qeasy_app_secret": "s"{robot}}}"#
        );
        ReadAhead::Done(Credentials::from_secret_json(&SecretString::from(fields)))
    }

    fn robot(address: &str) -> String {
        format!(r#", "notify_webhook": "https://{address}""#)
    }

    #[tokio::test(start_paused = true)]
    async fn a_robot_that_changes_reaches_a_connection_that_stays_warm() {
        let env = Env::of([("OKKI_SYNC_STORE", "memory:")]);
        let app = App::with_wires(env, Wires::default(), Clock::pinned());
        let from = PipelineSource::Text { name: "p.toml".to_owned(), text: PIPELINE.to_owned() };
        let ready = async |credentials| {
            let file = app.pipeline_file(&from).await.unwrap();
            let connection = app.connection_from(file, credentials).await.unwrap();
            tokio::time::advance(CREDENTIALS_KEPT_FOR).await;
            connection
        };
        // An address is never shown: two kinds of robot tell the old one from the new one.
        let shown = |connection: &Connection| format!("{:?}", connection.notify().webhook().unwrap());
        let first = ready(secret("k", &robot("oapi.dingtalk.com/robot/send?access_token=x"))).await;
        assert_eq!(shown(&first), "Some(Webhook { robot: DingTalk, .. })");
        let rotated = ready(secret("k", &robot("qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x"))).await;
        assert_eq!(shown(&rotated), "Some(Webhook { robot: WeCom, .. })");
        let removed = ready(secret("k", "")).await;
        assert_eq!(shown(&removed), "None");
        assert!(Arc::ptr_eq(&first, &rotated) && Arc::ptr_eq(&first, &removed));
        let another = ready(secret("k2", "")).await;
        assert!(!Arc::ptr_eq(&first, &another));
    }
}
