//! `report`: a stored run for people, as JSON, or as a page.

use std::path::Path;

use super::args::ReportArgs;
use super::sandbox::write_whole;
use super::term::{Screen, print, print_error, sanitize};
use super::{EXIT_OK, EXIT_USAGE, cannot_start, failed, pipeline, summary};
use crate::app::App;
use crate::config::Env;
use crate::error::Error;
use crate::report::Report;
use crate::words::say;

/// `report`.
pub(super) async fn report(env: &Env, screen: Screen, args: &ReportArgs) -> u8 {
    match answer(env, screen, args).await {
        Ok(code) => code,
        Err(error) => failed(screen, &error),
    }
}

async fn answer(env: &Env, screen: Screen, args: &ReportArgs) -> Result<u8, Error> {
    let app = App::new(env.clone());
    let (from, run) = (pipeline(&app, args.pipeline.as_ref()), args.run.as_deref());
    let Some(file) = &args.html else {
        let report = app.stored_report(from, run).await?;
        match args.json {
            true => print(&as_json(&report)),
            false => screen.print(&summary::of_report(report, screen.style())),
        }
        return Ok(EXIT_OK);
    };
    if let Some(folder) = missing_folder(file) {
        let (file, folder) = (file.display(), folder.display());
        print_error(&screen.say(&say!(
            "error: {file} cannot be written: there is no directory {folder}; create it first",
            file,
            folder,
        )));
        return Ok(EXIT_USAGE);
    }
    let page = app.run_as_page(from, run, screen.lang).await?;
    if let Err(error) = write_whole(file, &page.html) {
        return Ok(cannot_start(screen, say!("{file} cannot be written", file = file.display()), &error));
    }
    if args.json {
        print(&as_json(&page.report));
    } else {
        let run_id = sanitize(&page.report.run_id, usize::MAX);
        print(&(screen.say(&say!("run {run_id} is in {file}", run_id, file = file.display())) + "\n"));
    }
    Ok(EXIT_OK)
}

/// The directory that a file would be in, if it is not there.
fn missing_folder(file: &Path) -> Option<&Path> {
    file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
}

fn as_json(report: &Report) -> String {
    // A report of plain numbers and strings always has a JSON form.
    serde_json::to_string(report).map(|text| text + "\n").unwrap_or_default()
}
