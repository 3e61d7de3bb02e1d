//! Two hosts on one machine: network namespaces joined by a veth pair, the relay's on one CPU, the clients' and peers'
//! on another. Each host receives in its own kernel thread, pinned to its CPU like the interrupt of a network card.
//!
//! Nothing outlives the benchmark, even if it is killed. The namespaces have no names; each is held by a process that
//! ends when its standard input does. The kernel kills every other process with its parent, and a namespace without
//! processes disappears with its veth. Without the privileges for namespaces both hosts use the loopback device, where
//! the work of receiving cannot be measured separately.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::procfs;

/// The network of strangers and its prefix length, from the benchmarking range of RFC 2544. It is routed to the clients'
/// host.
pub const STRANGERS_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 16);

/// Two connected hosts.
pub struct Testbed {
    /// The host of the server.
    pub relay: Host,
    /// The host of the clients.
    pub clients: Host,
}

/// A host with an address and a CPU.
pub struct Host {
    pub ip: Ipv4Addr,
    /// The kernel thread that receives for the host.
    pub napi: Option<u32>,
    cpu: usize,
    /// The process that holds the namespace.
    namespace: Option<ChildProcess>,
}

impl Testbed {
    /// Opens both namespaces. If that fails, both hosts use the loopback device, and the error is returned too.
    /// With `tso`, long TCP segments cross the link as they are, as if a network card had cut and joined them again.
    pub fn open(relay_cpu: usize, clients_cpu: usize, tso: bool) -> Result<(Testbed, Option<anyhow::Error>)> {
        for cpu in [relay_cpu, clients_cpu] {
            let pinned = Command::new("taskset").args(["-c", &cpu.to_string(), "true"]).output()?;
            ensure!(
                pinned.status.success(),
                "CPU {cpu} cannot be used; choose others with --relay-cpu and --clients-cpu"
            );
        }
        match Testbed::namespaces(relay_cpu, clients_cpu, tso) {
            Ok(testbed) => Ok((testbed, None)),
            Err(error) => {
                let host = |ip, cpu| Host { ip, napi: None, cpu, namespace: None };
                let relay = host(Ipv4Addr::new(127, 0, 0, 1), relay_cpu);
                let clients = host(Ipv4Addr::new(127, 0, 0, 2), clients_cpu);
                Ok((Testbed { relay, clients }, Some(error)))
            }
        }
    }

    fn namespaces(relay_cpu: usize, clients_cpu: usize, tso: bool) -> Result<Testbed> {
        let ip = |last| Ipv4Addr::new(10, 111, 0, last);
        let mut relay = Host { ip: ip(1), napi: None, cpu: relay_cpu, namespace: Some(open_namespace()?) };
        let mut clients =
            Host { ip: ip(2), napi: None, cpu: clients_cpu, namespace: Some(open_namespace()?) };
        // Kernel threads are named after their devices. The tag tells them from those of another benchmark.
        let tag = std::process::id() & 0xffff;
        let (near, far) = (format!("r{tag:04x}"), format!("c{tag:04x}"));
        let far_pid = clients.namespace.as_ref().map_or(0, ChildProcess::pid).to_string();
        let one = ["numrxqueues", "1", "numtxqueues", "1"];
        let link = [
            "ip", "link", "add", &near, one[0], one[1], one[2], one[3], "type", "veth", "peer", "name", &far,
        ];
        relay.run(&[&link[..], &one[..], &["netns", &far_pid]].concat())?;
        relay.bring_up(&near, tso)?;
        let napi = clients.bring_up(&far, tso)?;
        let strangers = format!("{}/{}", STRANGERS_NETWORK.0, STRANGERS_NETWORK.1);
        clients.run(&["ip", "route", "add", "local", &strangers, "dev", "lo"])?;
        relay.run(&["ip", "route", "add", &strangers, "via", &clients.ip.to_string()])?;
        // The generator always runs and yields often enough. As SCHED_BATCH the thread does not preempt it; otherwise
        // the relay would pay for an interrupt of the other CPU with every packet.
        clients.run(&["chrt", "--batch", "--pid", "0", &napi.to_string()])?;
        Ok(Testbed { relay, clients })
    }
}

impl Host {
    /// The process that holds the host's namespace, if it has one.
    pub fn namespace_pid(&self) -> Option<u32> {
        self.namespace.as_ref().map(ChildProcess::pid)
    }

    /// A command that runs on this host and its CPU, and that the kernel kills when the benchmark ends.
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

    fn bring_up(&mut self, device: &str, tso: bool) -> Result<u32> {
        let tso = if tso { "on" } else { "off" };
        self.run(&["ethtool", "-K", device, "gro", "on", "tso", tso, "tx-udp-segmentation", "off"])?;
        self.run(&["ip", "address", "add", &format!("{}/24", self.ip), "dev", device])?;
        self.run(&["ip", "link", "set", device, "up"])?;
        self.run(&["sh", "-c", &format!("echo 1 > /sys/class/net/{device}/threaded")])?;
        for _ in 0..100 {
            if let Some(napi) = procfs::napi_thread(device) {
                self.run(&["taskset", "-p", "-c", &self.cpu.to_string(), &napi.to_string()])?;
                self.napi = Some(napi);
                return Ok(napi);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no kernel thread receives for the device; this needs Linux 5.12 or later")
    }
}

/// Starts a process in new network and mount namespaces, which ends with its standard input.
fn open_namespace() -> Result<ChildProcess> {
    let script = "mount -t sysfs sysfs /sys && ip link set lo up && echo open && exec cat";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut holder = ChildProcess(command.spawn().context("unshare")?);
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

/// A child process that is killed when it is dropped.
pub struct ChildProcess(pub Child);

impl ChildProcess {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
