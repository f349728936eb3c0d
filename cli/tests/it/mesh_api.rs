// SPDX-License-Identifier: Apache-2.0
//! A control plane that remembers what it was asked, head and body, and always says the same.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct MeshApi {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl MeshApi {
    pub(crate) fn start(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = asked.clone();
        // Ends with the test process; nextest gives each test its own.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), (status, body), &shared);
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, (status, body): (&str, &str), asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut request = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.to_ascii_lowercase().starts_with("authorization:") {
            request.push_str(" signed");
        }
    }
    let mut sent = String::new();
    reader.take(length).read_to_string(&mut sent).unwrap();
    asked
        .lock()
        .unwrap()
        .push(format!("{request} {sent}").trim().to_owned());
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}
