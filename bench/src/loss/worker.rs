//! A worker that tells on standard output what it runs: `start N`, some work, `done N`. It takes
//! one job at a time, comes back after each lost connection, and asks for what was left behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::BytesMut;

use crate::payload;
use crate::systems::{Event, Setup, System, Talk};

/// How long a job takes.
const WORK_TIME: Duration = Duration::from_millis(3);
/// How long a worker without a job waits before it looks again.
const IDLE_TIME: Duration = Duration::from_millis(20);
/// How long it waits before it connects again.
const RETRY_TIME: Duration = Duration::from_millis(10);

/// Milliseconds of silence after which a killed worker's jobs are another's.
const SILENCE_MS: u32 = 1_000;

/// Works until it is killed.
pub(crate) fn run(system: &dyn System, address: &str, id: usize, queue: &str) -> Result<()> {
    let mut talk = system.talk(Setup {
        id,
        queues: vec![queue.to_owned()],
        declares: false,
        consumes: true,
        share: (0, 1),
        in_flight: 1,
        batch: 1,
        silence_ms: SILENCE_MS,
    });
    loop {
        // A lost connection is what this is about; anything else shows in the count of lost jobs.
        if let Err(error) = serve(talk.as_mut(), address, queue) {
            eprintln!("worker {id}: {error:#}");
        }
        talk.lose_connection();
        thread::sleep(RETRY_TIME);
    }
}

/// Works over one connection until that is lost.
fn serve(talk: &mut dyn Talk, address: &str, queue: &str) -> Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut line = Line { stream, input: BytesMut::new() };
    let mut out = BytesMut::new();
    talk.put_greeting(&mut out);
    line.ask(talk, &mut out)?;
    let mut recover = true;
    loop {
        if recover && talk.put_recover(0, queue, &mut out) {
            recover = work(&line.ask(talk, &mut out)?)?;
            continue;
        }
        talk.put_take(0, queue, 1, false, &mut out);
        if !work(&line.ask(talk, &mut out)?)? {
            thread::sleep(IDLE_TIME);
            recover = true;
        }
    }
}

/// Does what jobs ask for. Gives whether there were any.
fn work(jobs: &[u64]) -> Result<bool> {
    let mut stdout = std::io::stdout();
    for number in jobs {
        writeln!(stdout, "start {number}")?;
        stdout.flush()?;
        thread::sleep(WORK_TIME);
        writeln!(stdout, "done {number}")?;
        stdout.flush()?;
    }
    Ok(!jobs.is_empty())
}

struct Line {
    stream: TcpStream,
    input: BytesMut,
}

impl Line {
    /// Sends requests and waits for the answer to the last: the numbers of the jobs in it.
    fn ask(&mut self, talk: &mut dyn Talk, out: &mut BytesMut) -> Result<Vec<u64>> {
        self.stream.write_all(&out.split())?;
        let (mut jobs, mut answered) = (Vec::new(), false);
        let mut buffer = [0; 4096];
        while !answered {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the connection was closed");
            }
            self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
            talk.read(&mut self.input, &mut |event| {
                match event {
                    Event::Job { payload, .. } => jobs.push(payload::read(payload)?.number),
                    Event::Ready | Event::Taken { .. } => answered = true,
                    Event::Enqueued { .. } | Event::Finished => {}
                }
                Ok(())
            })?;
        }
        Ok(jobs)
    }
}
