// What the page of a website does beside calls: talks to a WebSocket, and calls other browsers. `until` and `movingPicture`
// are those of call.js.
"use strict";

// A WebSocket that echoes.
class Echo {
  constructor(url) {
    this.received = [];
    this.socket = new WebSocket(url);
    this.socket.onmessage = ({ data }) => this.received.push(data);
  }

  // Sends `count` messages of `size` characters and waits for their echoes. Returns whether they are unchanged.
  async echo(count, size) {
    await until(() => this.socket.readyState === WebSocket.OPEN);
    const sent = Array.from({ length: count }, (_, n) => `${n} `.padEnd(size, "."));
    sent.forEach((message) => this.socket.send(message));
    await until(() => this.received.length >= count);
    const received = this.received.splice(0);
    return received.length === count && received.every((message, n) => message === sent[n]);
  }
}

// One end of a call whose other end is in another browser: a data channel, and video both ways. A description has all
// candidates of its end.
class End {
  constructor(configuration) {
    this.received = [];
    this.connection = new RTCPeerConnection({ ...configuration, iceTransportPolicy: "relay" });
    this.connection.ondatachannel = ({ channel }) => this.use(channel);
    const video = movingPicture();
    this.connection.addTrack(video.getVideoTracks()[0], video);
  }

  use(channel) {
    this.channel = channel;
    channel.onmessage = ({ data }) => this.received.push(data);
  }

  async offer() {
    this.use(this.connection.createDataChannel("talk"));
    return this.describe();
  }

  async answer(offer) {
    await this.connection.setRemoteDescription(offer);
    return this.describe();
  }

  accept(answer) {
    return this.connection.setRemoteDescription(answer);
  }

  async describe() {
    await this.connection.setLocalDescription();
    await until(() => this.connection.iceGatheringState === "complete");
    const { type, sdp } = this.connection.localDescription;
    return { type, sdp };
  }

  async send(count) {
    await until(() => this.channel?.readyState === "open");
    for (let n = 0; n < count; n += 1) this.channel.send(`${n}`);
  }

  // Waits for what the other end has sent; returns whether it is complete and in order.
  async receives(count) {
    await until(() => this.received.length >= count);
    const received = this.received.splice(0);
    return received.length === count && received.every((message, n) => message === `${n}`);
  }

  // Waits for `count` more frames.
  async watch(count) {
    const before = await this.decoded();
    await until(async () => (await this.decoded()) >= before + count);
  }

  async decoded() {
    const stats = [...(await this.connection.getStats()).values()];
    return stats.find(({ type, kind }) => type === "inbound-rtp" && kind === "video")?.framesDecoded ?? 0;
  }

  // The local candidate of the selected pair.
  async selected() {
    const stats = await this.connection.getStats();
    const transport = [...stats.values()].find(({ type }) => type === "transport");
    return stats.get(stats.get(transport.selectedCandidatePairId).localCandidateId);
  }
}
