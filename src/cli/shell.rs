//! `completions` and `man`: what a shell and `man` know of the command line, made from its definition.

use clap::CommandFactory as _;

use super::args::{Args, Shell};
use super::term::{Screen, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE};
use crate::words::{Message, say};

const PROGRAM: &str = "okki-sync";

/// `completions`.
pub(super) fn completions(shell: Shell) -> u8 {
    use clap_complete::Shell as Known;
    let mut script = Vec::new();
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    clap_complete::generate(known, &mut Args::command(), PROGRAM, &mut script);
    print(&String::from_utf8_lossy(&script));
    EXIT_OK
}

/// `man`: the page of the program, or of one command.
pub(super) fn man(screen: Screen, words: &[String]) -> u8 {
    let mut command = Args::command();
    command.build();
    let mut name = PROGRAM.to_owned();
    for word in words {
        let inner = command.get_subcommands().find(|inner| inner.get_name() == word && !inner.is_hide_set());
        let Some(inner) = inner.cloned() else {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let known = match known.is_empty() {
                true => say!("nothing"),
                false => Message::from(known.join(", ")),
            };
            let word = sanitize(word, 60);
            print_error(&screen.say(&say!(
                "error: {name} has no command {word}; it has {known}",
                name,
                word,
                known,
            )));
            return EXIT_USAGE;
        };
        name = format!("{name}-{word}");
        command = inner;
    }
    let mut page = Vec::new();
    match clap_mangen::Man::new(command.display_name(name)).render(&mut page) {
        Ok(()) => {
            print(&String::from_utf8_lossy(&page));
            EXIT_OK
        }
        Err(error) => {
            print_error(&screen.say(&say!("error: the man page cannot be printed: {error}", error)));
            EXIT_FAILURE
        }
    }
}
