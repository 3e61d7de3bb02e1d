// A call between two peer connections in one page, over relay candidates only: a data channel that echoes, and a video
// track from the caller to the callee.
"use strict";

class Call {
  constructor(configuration) {
    this.candidates = 0;
    this.errors = [];
    this.caller = this.end(configuration);
    this.callee = this.end(configuration);
    this.ends = [this.caller, this.callee];
    this.trickle(this.caller, this.callee);
    this.trickle(this.callee, this.caller);

    this.received = [];
    this.channel = this.caller.createDataChannel("echo");
    this.channel.onmessage = ({ data }) => this.received.push(data);
    this.callee.ondatachannel = ({ channel }) => {
      channel.onmessage = ({ data }) => channel.send(data);
    };

    const video = movingPicture();
    this.caller.addTrack(video.getVideoTracks()[0], video);
  }

  end(configuration) {
    const end = new RTCPeerConnection({ ...configuration, iceTransportPolicy: "relay" });
    end.addEventListener("icecandidateerror", ({ errorCode, url }) => this.errors.push({ errorCode, url }));
    return end;
  }

  trickle(from, to) {
    from.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) this.candidates += 1;
      if (candidate) to.addIceCandidate(candidate);
    });
  }

  // Exchanges offer and answer; candidates are trickled. Calling it again restarts ICE.
  async negotiate() {
    this.caller.restartIce();
    await this.caller.setLocalDescription();
    await this.callee.setRemoteDescription(this.caller.localDescription);
    await this.callee.setLocalDescription();
    await this.caller.setRemoteDescription(this.callee.localDescription);
  }

  // Waits until both ends have finished gathering candidates.
  gathered() {
    return until(() => this.ends.every((end) => end.iceGatheringState === "complete"));
  }

  // Waits until both ends are connected, or until neither is.
  connected(wanted) {
    return until(() => this.ends.every((end) => (end.connectionState === "connected") === wanted));
  }

  // Sends `count` messages of `size` bytes and waits for their echoes. Returns whether they are unchanged.
  async echo(count, size) {
    await until(() => this.channel.readyState === "open");
    const sent = Array.from({ length: count }, (_, n) => `${n} `.padEnd(size, "."));
    sent.forEach((message) => this.channel.send(message));
    await until(() => this.received.length >= count);
    const received = this.received.splice(0);
    return received.length === count && received.every((message, n) => message === sent[n]);
  }

  // Waits until the callee has decoded `count` more frames.
  async watch(count) {
    const before = await this.decoded();
    await until(async () => (await this.decoded()) >= before + count);
  }

  async decoded() {
    const stats = [...(await this.callee.getStats()).values()];
    return stats.find(({ type, kind }) => type === "inbound-rtp" && kind === "video")?.framesDecoded ?? 0;
  }

  // The candidates of the selected pair at each end.
  selected() {
    return Promise.all(this.ends.map(async (end) => {
      const stats = await end.getStats();
      const transport = [...stats.values()].find(({ type }) => type === "transport");
      const pair = stats.get(transport.selectedCandidatePairId);
      return { local: stats.get(pair.localCandidateId), remote: stats.get(pair.remoteCandidateId) };
    }));
  }
}

// Resolves when the condition holds; rejects when patience, in milliseconds, is over.
async function until(condition, patience = 30_000) {
  const end = performance.now() + patience;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`condition not met: ${condition}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

// A video stream whose picture changes constantly.
function movingPicture() {
  const canvas = document.createElement("canvas");
  canvas.width = 320;
  canvas.height = 240;
  const brush = canvas.getContext("2d");
  let n = 0;
  setInterval(() => {
    brush.fillStyle = `hsl(${(n += 7) % 360} 80% 50%)`;
    brush.fillRect(0, 0, 320, 240);
    brush.fillStyle = "black";
    brush.fillRect((n * 3) % 300, (n * 2) % 220, 20, 20);
  }, 40);
  return canvas.captureStream(25);
}
