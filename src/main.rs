//! The Lambda program: logging, app, run.

use lambda_runtime::{LambdaEvent, service_fn};
use okki_sync::Env;
use okki_sync::app::App;
use okki_sync::{handler, logging};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let env = Env::process();
    logging::init_lambda(env.log_level().as_deref());
    let app = App::new(env);
    // The init phase has a full CPU and is not waited for by anybody: what every run needs is made here.
    app.warm_up().await;
    let app = &app;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<serde_json::Value>| handler::handle(app, event)))
        .await
}
