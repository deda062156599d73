//! A sandbox on loopback ports, for other processes.

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Sandbox;
use crate::options::Credentials;
use crate::page::{self, Addresses};

/// A sandbox on loopback ports; stops serving when dropped.
#[derive(Debug)]
pub struct Serving {
    /// Base URL of OKKI.
    pub okki_url: String,
    /// Base URL of Qeasy and of the plain HTTP target.
    pub target_url: String,
    /// Address of the page, if it is served.
    pub page_url: Option<String>,
    credentials: Credentials,
    tasks: Vec<JoinHandle<()>>,
}

impl Serving {
    fn add(&mut self, listener: TcpListener, router: Router) {
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the sandbox stopped serving");
            }
        }));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Sandbox {
    /// Serves both services on 127.0.0.1; port 0 takes a free one.
    pub async fn serve(&self, okki_port: u16, target_port: u16) -> std::io::Result<Serving> {
        let okki = TcpListener::bind(("127.0.0.1", okki_port)).await?;
        let target = TcpListener::bind(("127.0.0.1", target_port)).await?;
        let mut serving = Serving {
            okki_url: format!("http://{}", okki.local_addr()?),
            target_url: format!("http://{}", target.local_addr()?),
            page_url: None,
            credentials: self.current_credentials(),
            tasks: Vec::new(),
        };
        for (listener, router) in [(okki, self.okki()), (target, self.target())] {
            serving.add(listener, router);
        }
        Ok(serving)
    }

    /// Serves the page beside them, on a port of its own of 127.0.0.1; port 0 takes a free one.
    pub async fn serve_page(&self, serving: &mut Serving, port: u16) -> std::io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        serving.page_url = Some(format!("http://{}/", listener.local_addr()?));
        let addresses = Addresses { okki: serving.okki_url.clone(), target: serving.target_url.clone() };
        serving.add(listener, page::router(self, addresses));
        Ok(())
    }

    /// The environment that points the programs at a served sandbox.
    pub fn environment(serving: &Serving) -> Vec<(&'static str, String)> {
        let known = serving.credentials.clone();
        vec![
            ("OKKI_BASE_URL", serving.okki_url.clone()),
            ("OKKI_CLIENT_ID", known.okki_client_id),
            ("OKKI_CLIENT_SECRET", known.okki_client_secret),
            ("TARGET_BASE_URL", serving.target_url.clone()),
            ("QEASY_APP_KEY", known.qeasy_app_key),
            ("QEASY_APP_SECRET", known.qeasy_app_secret),
            ("QEASY_SCHEME_ID", known.scheme_id),
            ("TARGET_TOKEN", known.target_token),
            // A pipeline of the store may name the sandbox too.
            ("OKKI_SYNC_HOSTS", "127.0.0.1".to_owned()),
        ]
    }
}
