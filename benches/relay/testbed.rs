//! Two hosts on one machine: network namespaces joined by a veth, the relay's on one CPU, the clients' and peers' on
//! another, and what each host receives handled by a kernel thread of its own, pinned like a NIC's interrupt.
//!
//! The namespaces have no names and nothing outlives the benchmark: each is held by a process that ends when its
//! standard input does, every other process asks the kernel to be killed with its parent, and a namespace whose
//! processes are gone takes its veth along. That holds even if the benchmark itself is killed. Without the
//! privileges for namespaces both hosts are the loopback device, whose receive work cannot be told apart.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cpu;

/// The network of strangers, which is routed to the clients' host: the first half of RFC 2544's, and its prefix length.
pub const STRANGERS: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 16);

/// Two hosts and what joins them.
pub struct Testbed {
    /// Where the server runs.
    pub relay: Host,
    /// Where clients and peers run.
    pub clients: Host,
}

/// One of the two.
pub struct Host {
    /// Its address.
    pub ip: Ipv4Addr,
    /// The kernel thread that receives for it.
    pub napi: Option<u32>,
    cpu: usize,
    namespace: Option<Running>,
}

impl Testbed {
    /// Opens both namespaces, or says why loopback has to do.
    pub fn open(relay_cpu: usize, clients_cpu: usize) -> Result<(Testbed, Option<anyhow::Error>)> {
        for cpu in [relay_cpu, clients_cpu] {
            let pinned = Command::new("taskset").args(["-c", &cpu.to_string(), "true"]).output()?;
            ensure!(
                pinned.status.success(),
                "CPU {cpu} cannot be used; --relay-cpu and --clients-cpu choose others"
            );
        }
        match Testbed::namespaces(relay_cpu, clients_cpu) {
            Ok(testbed) => Ok((testbed, None)),
            Err(why) => {
                let host = |ip, cpu| Host { ip, napi: None, cpu, namespace: None };
                let relay = host(Ipv4Addr::new(127, 0, 0, 1), relay_cpu);
                let clients = host(Ipv4Addr::new(127, 0, 0, 2), clients_cpu);
                Ok((Testbed { relay, clients }, Some(why)))
            }
        }
    }

    fn namespaces(relay_cpu: usize, clients_cpu: usize) -> Result<Testbed> {
        let ip = |last| Ipv4Addr::new(10, 111, 0, last);
        let mut relay = Host { ip: ip(1), napi: None, cpu: relay_cpu, namespace: Some(hold()?) };
        let mut clients = Host { ip: ip(2), napi: None, cpu: clients_cpu, namespace: Some(hold()?) };
        // The kernel threads are named after their devices, and must not be taken for another benchmark's.
        let tag = std::process::id() & 0xffff;
        let (near, far) = (format!("r{tag:04x}"), format!("c{tag:04x}"));
        let far_pid = clients.namespace.as_ref().map_or(0, Running::pid).to_string();
        let one = ["numrxqueues", "1", "numtxqueues", "1"];
        let link = [
            "ip", "link", "add", &near, one[0], one[1], one[2], one[3], "type", "veth", "peer", "name", &far,
        ];
        relay.run(&[&link[..], &one[..], &["netns", &far_pid]].concat())?;
        relay.bring_up(&near)?;
        let napi = clients.bring_up(&far)?;
        let strangers = format!("{}/{}", STRANGERS.0, STRANGERS.1);
        clients.run(&["ip", "route", "add", "local", &strangers, "dev", "lo"])?;
        relay.run(&["ip", "route", "add", &strangers, "via", &clients.ip.to_string()])?;
        // The generator is always there to be interrupted, and need not be: it yields. Without this the relay would
        // pay for interrupting it with every packet.
        clients.run(&["chrt", "--batch", "--pid", "0", &napi.to_string()])?;
        Ok(Testbed { relay, clients })
    }
}

impl Host {
    /// Whether it is a host of its own.
    pub fn is_namespace(&self) -> bool {
        self.namespace.is_some()
    }

    /// A command on this host and its CPU, killed when the benchmark ends in whatever way.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(namespace) = &self.namespace {
            command.args(["nsenter", "--net", "--mount", "--target", &namespace.pid().to_string(), "--"]);
        }
        command.args(["taskset", "-c", &self.cpu.to_string()]).arg(program);
        command
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let output = self.command(words[0]).args(&words[1..]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", words.join(" "), said.trim());
        Ok(())
    }

    fn bring_up(&mut self, device: &str) -> Result<u32> {
        self.run(&["ethtool", "-K", device, "gro", "on", "tso", "off", "tx-udp-segmentation", "off"])?;
        self.run(&["ip", "address", "add", &format!("{}/24", self.ip), "dev", device])?;
        self.run(&["ip", "link", "set", device, "up"])?;
        self.run(&["sh", "-c", &format!("echo 1 > /sys/class/net/{device}/threaded")])?;
        for _ in 0..100 {
            if let Some(napi) = cpu::napi_thread(device) {
                self.run(&["taskset", "-p", "-c", &self.cpu.to_string(), &napi.to_string()])?;
                self.napi = Some(napi);
                return Ok(napi);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no kernel thread receives for the device; Linux 5.12 or later has them")
    }
}

/// A process in a network and mount namespace of its own, there until its standard input ends.
fn hold() -> Result<Running> {
    let script = "mount -t sysfs sysfs /sys && ip link set lo up && echo open && exec cat";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = Running(command.spawn().context("unshare")?);
    let mut line = String::new();
    if let Some(output) = holder.0.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.trim() != "open" {
        drop(holder.0.stdin.take());
        let said = holder.0.stderr.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
        bail!("network namespaces need root ({})", said.trim());
    }
    Ok(holder)
}

/// A child that does not outlive its owner.
pub struct Running(pub Child);

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
