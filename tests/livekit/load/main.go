// Joins a room with many participants at once, all of whose media goes through relays only.
//
// Once each has connected or failed, it prints one line of JSON, described by the type report. The participants stay
// until standard input closes and then leave. The API key and its secret are read from LIVEKIT_API_KEY and
// LIVEKIT_API_SECRET.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	protocol "github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
)

type report struct {
	// How many participants have connected.
	Connected int `json:"connected"`
	// Why the others have not.
	Failed []string `json:"failed"`
	// How many attempts were made in vain before.
	Retries int `json:"retries"`
	// How many connected participants have a selected candidate pair with this type and protocol of the local candidate
	// and, for a relayed one, of the connection to the relay.
	Pairs map[string]int `json:"pairs"`
	// How long each connected participant took.
	Seconds []float64 `json:"seconds"`
}

func main() {
	url := flag.String("url", "", "URL of the LiveKit server")
	room := flag.String("room", "load", "name of the room")
	count := flag.Int("count", 1, "number of participants")
	timeout := flag.Duration("timeout", 15*time.Second, "how long an attempt to connect may take")
	attempts := flag.Int("attempts", 4, "how often each participant tries")
	flag.Parse()
	// Each participant that an overloaded machine lets down would write a page.
	lksdk.SetLogger(protocol.GetDiscardLogger())

	result := report{Failed: []string{}, Pairs: map[string]int{}, Seconds: []float64{}}
	var rooms []*lksdk.Room
	var lock sync.Mutex
	var all sync.WaitGroup
	for n := range *count {
		all.Go(func() {
			began := time.Now()
			joined, pair, retries, err := join(*url, *room, fmt.Sprintf("load-%d", n), *timeout, *attempts)
			took := time.Since(began).Seconds()
			lock.Lock()
			defer lock.Unlock()
			result.Retries += retries
			if err != nil {
				result.Failed = append(result.Failed, err.Error())
				return
			}
			rooms = append(rooms, joined)
			result.Connected++
			result.Pairs[pair]++
			result.Seconds = append(result.Seconds, took)
		})
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)

	for _, joined := range rooms {
		all.Go(joined.Disconnect)
	}
	all.Wait()
}

// Joins a room and describes the selected candidate pair. On a machine that is overloaded by all participants together,
// the server may have given a candidate pair up before the client opens its side of it, and only a new attempt helps.
func join(url, room, identity string, timeout time.Duration, attempts int) (*lksdk.Room, string, int, error) {
	who := lksdk.ConnectInfo{
		APIKey:              os.Getenv("LIVEKIT_API_KEY"),
		APISecret:           os.Getenv("LIVEKIT_API_SECRET"),
		RoomName:            room,
		ParticipantIdentity: identity,
	}
	var failure error
	for attempt := range attempts {
		joined, err := lksdk.ConnectToRoom(url, who, lksdk.NewRoomCallback(),
			lksdk.WithICETransportPolicy(webrtc.ICETransportPolicyRelay),
			lksdk.WithConnectTimeout(timeout),
			lksdk.WithDisableRegionDiscovery(),
		)
		if err == nil {
			return joined, selected(joined.LocalParticipant.GetSubscriberPeerConnection()), attempt, nil
		}
		failure = err
	}
	return nil, "", attempts - 1, failure
}

// Describes the selected candidate pair of a peer connection.
func selected(connection *webrtc.PeerConnection) string {
	statistics := connection.GetStats()
	for _, one := range statistics {
		pair, ok := one.(webrtc.ICECandidatePairStats)
		if !ok || !pair.Nominated || pair.State != webrtc.StatsICECandidatePairStateSucceeded {
			continue
		}
		if local, ok := statistics[pair.LocalCandidateID].(webrtc.ICECandidateStats); ok {
			return fmt.Sprintf("%s/%s/%s", local.CandidateType, local.Protocol, local.RelayProtocol)
		}
	}
	return "none"
}
