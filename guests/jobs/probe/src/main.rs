//! A job for tests: does what its variable `ACT` says, and prints what it finds.
//!
//! `ACT` holds commands separated by `,`, each `WORD` or `WORD=ARGUMENT`.
#![expect(
    clippy::disallowed_methods,
    reason = "what a guest can reach is what its sandbox gives it, which is what this looks at"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;
use std::{env, fs, io, process, thread};

fn main() {
    let script = env::var("ACT").unwrap_or_default();
    for command in script.split(',') {
        let (word, argument) = command.split_once('=').unwrap_or((command, ""));
        act(word, argument);
    }
}

fn act(word: &str, argument: &str) {
    let number = || argument.parse::<u64>().expect("a number");
    match word {
        "" => {}
        "exit" => process::exit(argument.parse().expect("a code")),
        "panic" => panic!("as asked"),
        "spin" => loop {
            std::hint::black_box(0);
        },
        "sleep-ms" => thread::sleep(Duration::from_millis(number())),
        // Returns when the job is asked to end.
        "wait" => {
            let mut nothing = Vec::new();
            io::stdin().read_to_end(&mut nothing).expect("stdin ends");
        }
        "grow" => {
            let bytes = vec![1_u8; usize::try_from(number()).expect("fits")];
            std::hint::black_box(&bytes);
        }
        "say" => println!("{argument}"),
        "complain" => eprintln!("{argument}"),
        "print-bytes" => {
            let line = [b'x'; 1024];
            let mut out = io::stdout().lock();
            for _ in 0..number() / 1024 {
                out.write_all(&line).expect("stdout");
            }
        }
        "write" => {
            let (path, bytes) = argument.split_once('=').expect("a path and a number");
            let bytes = vec![7; bytes.parse().expect("a number")];
            tell(word, fs::write(path, bytes));
        }
        "read" => tell(word, fs::read(argument).map(drop)),
        "list" => match fs::read_dir(argument) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    println!("{}", entry.path().display());
                }
            }
            Err(error) => println!("list failed: {error}"),
        },
        "env" => {
            for (name, value) in env::vars() {
                println!("{name}={value}");
            }
        }
        "files" => {
            for file in 0..number() {
                fs::write(format!("/data/{file}"), "").expect("a file");
            }
        }
        "nest" => {
            let (depth, file) = argument.split_once('=').expect("a depth and a file");
            nest(depth.parse().expect("a number"), file);
        }
        "resolve" => tell(word, argument.to_socket_addrs().map(drop)),
        "udp" => {
            let sent = UdpSocket::bind("0.0.0.0:0").and_then(|own| own.send_to(b"x", argument));
            tell(word, sent.map(drop));
        }
        "listen" => tell(word, TcpListener::bind(argument).map(drop)),
        "connect" => tell(word, TcpStream::connect(argument).map(drop)),
        other => panic!("{other}?"),
    }
}

fn tell(what: &str, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{what} worked"),
        Err(error) => println!("{what} failed: {error}"),
    }
}

/// Makes so many directories, each in the one before, and a file in the last. A path may only have
/// a part of that length, so that what is made moves into the end of the next part.
fn nest(depth: usize, file: &str) {
    const PART: usize = 1000;
    let (mut made, mut below) = (0, None);
    while made < depth {
        let top = format!("/data/{made}");
        let mut path = top.clone();
        for _ in 0..PART.min(depth - made) {
            fs::create_dir(&path).expect("a directory");
            path += "/d";
        }
        match below {
            Some(below) => fs::rename(below, &path).expect("it moves"),
            None => {
                fs::write(path.trim_end_matches("d").to_owned() + file, "12345").expect("a file")
            }
        }
        made += PART.min(depth - made);
        below = Some(top);
    }
}
