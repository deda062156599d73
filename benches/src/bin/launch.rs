//! `launch [--cpu N] -- PROGRAM ARGS…`: runs a program and says what it cost, from `wait4`.
//!
//! run.py could call `os.wait4` itself, but Linux counts the memory of whoever forks towards the peak of what is
//! started: ten megabytes of Python would hide the smaller contestants. This program is two.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let split = args.iter().position(|arg| arg == "--").expect("launch [--cpu N] -- PROGRAM ARGS");
    if let Some(cpu) = okki_sync_bench::option("cpu").and_then(|cpu| cpu.parse().ok()) {
        // SAFETY: a zeroed cpu_set_t is an empty one, and the pointer is to this local.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
    let mut command = Command::new(&args[split + 1]);
    command.args(&args[split + 2..]).stdin(Stdio::null()).stdout(Stdio::null());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let started = Instant::now();
    let child = command.spawn().expect("the program starts");
    println!(r#"{{"pid":{},"started_ns":{since}}}"#, child.id());
    std::io::stdout().flush().unwrap();
    // SAFETY: the pointers are to locals, and a zeroed rusage is a valid one.
    let (status, usage) = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        libc::wait4(child.id() as i32, &mut status, 0, &mut usage);
        (status, usage)
    };
    let wall = started.elapsed().as_secs_f64();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
    println!(
        r#"{{"wall":{wall},"user":{},"sys":{},"peak_kib":{},"code":{code}}}"#,
        seconds(usage.ru_utime),
        seconds(usage.ru_stime),
        usage.ru_maxrss,
    );
}
