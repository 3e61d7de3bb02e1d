// Pages that take part in calls: members of a LiveKit room with LiveKit's own client, and streams of a MediaMTX server with
// that of MediaMTX. They publish a moving picture or watch what others publish. `until` and `movingPicture` are those of
// call.js.
"use strict";

// All peer connections that clients make.
const connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...configuration) {
    super(...configuration);
    connections.push(this);
  }
};

// Watches the connections of a page: what they receive, and through which candidates.
class Watch {
  constructor() {
    connections.splice(0);
    this.seen = 0;
    this.total = 0;
    this.changed = this.began = performance.now();
    this.first = null;
    this.pause = 0;
    this.timer = setInterval(() => this.look(), 50);
  }

  end() {
    clearInterval(this.timer);
  }

  open() {
    return connections.filter(({ connectionState }) => connectionState !== "closed");
  }

  // The ICE servers in use, without their passwords.
  iceServers() {
    const servers = this.open().flatMap((connection) => connection.getConfiguration().iceServers);
    return servers.map(({ urls, username }) => ({ urls: [urls].flat(), username }));
  }

  // The candidates of the selected pair of each connected transport.
  async selected() {
    const pairs = [];
    for (const connection of this.open()) {
      const stats = await connection.getStats();
      const transport = [...stats.values()].find(({ type }) => type === "transport");
      const pair = transport?.dtlsState === "connected" && stats.get(transport.selectedCandidatePairId);
      if (pair) pairs.push({ local: stats.get(pair.localCandidateId), remote: stats.get(pair.remoteCandidateId) });
    }
    return pairs;
  }

  // Notes new frames: when the first came, and the longest time without any.
  async look() {
    if (this.looking) return;
    this.looking = true;
    const frames = await this.frames();
    this.looking = false;
    if (frames === this.seen) return;
    const now = performance.now();
    // A new connection counts from zero.
    this.total += frames > this.seen ? frames - this.seen : frames;
    this.seen = frames;
    if (this.first === null) this.first = now - this.began;
    else this.pause = Math.max(this.pause, now - this.changed);
    this.changed = now;
  }

  // How many frames the open connections have decoded.
  async frames() {
    let frames = 0;
    for (const connection of this.open()) {
      for (const { type, kind, framesDecoded } of (await connection.getStats()).values()) {
        if (type === "inbound-rtp" && kind === "video") frames += framesDecoded ?? 0;
      }
    }
    return frames;
  }

  // Waits for `count` more frames. Returns the seconds from the beginning to the first frame. After a restart of a relay a
  // busy machine takes more than half a minute.
  async watch(count) {
    const before = this.total;
    await until(() => this.total >= before + count, 55_000);
    return this.first / 1000;
  }

  // The longest time without a new frame since the last call of this function, in seconds.
  longestPause() {
    const longest = Math.max(this.pause, performance.now() - this.changed) / 1000;
    this.pause = 0;
    return longest;
  }
}

// A member of a LiveKit room.
class Member extends Watch {
  constructor() {
    super();
    this.room = new LivekitClient.Room({ disconnectOnPageLeave: false });
    this.events = [];
    for (const event of ["SignalReconnecting", "Reconnecting", "Reconnected", "Disconnected"]) {
      this.room.on(LivekitClient.RoomEvent[event], () => this.events.push(event));
    }
  }

  // Joins a room. ICE servers from the sidecar at `ask`, if that is given, replace those that the LiveKit server names.
  async join(url, token, ask) {
    await this.room.connect(url, token, ask ? { rtcConfig: await this.ask(ask, token) } : {});
  }

  // What the sidecar has for the owner of this token.
  async ask(url, token) {
    const response = await fetch(`${url}/v1/ice-servers`, { headers: { Authorization: `Bearer ${token}` } });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    const { iceServers } = await response.json();
    return { iceServers };
  }

  async publish() {
    const [track] = movingPicture().getVideoTracks();
    await this.room.localParticipant.publishTrack(track, { simulcast: false, source: "camera" });
  }

  async leave() {
    this.end();
    await this.room.disconnect();
  }

  get state() {
    return this.room.state;
  }

  // The server's identifier of this participant, `PA_...`.
  get sid() {
    return this.room.localParticipant.sid;
  }
}

// A stream of a MediaMTX server that this page publishes or reads, with MediaMTX's own client for that.
class Stream extends Watch {
  // `url` is that of the stream.
  async publish(url) {
    await load(`${url}/publisher.js`);
    const codecs = { videoCodec: "vp8/90000", videoBitrate: 1000, audioCodec: "opus/48000", audioBitrate: 32 };
    this.client = new MediaMTXWebRTCPublisher({ url: `${url}/whip`, stream: movingPicture(), ...codecs });
    await until(() => this.open().some(({ connectionState }) => connectionState === "connected"));
  }

  async read(url) {
    await load(`${url}/reader.js`);
    this.client = new MediaMTXWebRTCReader({ url: `${url}/whep` });
  }

  async leave() {
    this.end();
    this.client.close();
  }
}

async function load(url) {
  const script = document.createElement("script");
  script.src = url;
  document.head.append(script);
  await new Promise((resolve, reject) => Object.assign(script, { onload: resolve, onerror: reject }));
}
