// Drives JetStream by its own client: each|fast URL STREAM WARM SECONDS.
//
// `each` publishes asynchronously, an acknowledgement an event; `fast` is the batched ingest of the
// client's extensions, whose acknowledgements say up to where all is kept.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

func windowOf(size int) int { return max(64, 10_000*100/size) }

// A window of appends in flight; what was sent and is not pending is acknowledged.
func each(nc *nats.Conn, subject string, size int, warm, span time.Duration) (sent uint64) {
	failed := func(_ jetstream.JetStream, _ *nats.Msg, err error) { log.Fatal(err) }
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(windowOf(size)),
		jetstream.WithPublishAsyncErrHandler(failed),
	)
	must(err)
	payload := event(size)
	publish := func(until time.Time) {
		for time.Now().Before(until) {
			_, err := js.PublishAsync(subject, payload, jetstream.WithStallWait(10*time.Second))
			must(err)
			sent++
		}
	}
	publish(time.Now().Add(warm))
	from, before := time.Now(), sent-uint64(js.PublishAsyncPending())
	publish(from.Add(span))
	acked, took := sent-uint64(js.PublishAsyncPending())-before, time.Since(from)
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(60 * time.Second):
		log.Fatalf("%d appends were never acknowledged", js.PublishAsyncPending())
	}
	showWindow(size, acked, took)
	return sent
}

// One long batch.
func fast(nc *nats.Conn, subject string, size int, warm, span time.Duration) uint64 {
	js, err := jetstream.New(nc)
	must(err)
	publisher, err := jetstreamext.NewFastPublisher(js, jetstreamext.FastPublishFlowControl{
		Flow: uint16(windowOf(size) / 10), MaxOutstandingAcks: 10, AckTimeout: 10 * time.Second,
	}, jetstreamext.WithFastPublisherErrorHandler(func(err error) { log.Fatal(err) }))
	must(err)
	payload := event(size)
	var sent, acked uint64
	add := func(until time.Time) {
		for time.Now().Before(until) {
			ack, err := publisher.Add(subject, payload)
			must(err)
			sent, acked = ack.BatchSequence, ack.AckSequence
		}
	}
	add(time.Now().Add(warm))
	from, before := time.Now(), acked
	add(from.Add(span))
	counted, took := acked-before, time.Since(from)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	end, err := publisher.Close(ctx)
	must(err)
	if end.BatchSize != sent {
		log.Fatalf("%d events were sent, %d acknowledged", sent, end.BatchSize)
	}
	showWindow(size, counted, took)
	return sent
}

func main() {
	window := map[string]func(*nats.Conn, string, int, time.Duration, time.Duration) uint64{
		"each": each, "fast": fast,
	}[os.Args[1]]
	url, stream := os.Args[2], os.Args[3]
	warm, span := seconds(os.Args[4]), seconds(os.Args[5])
	nc, err := nats.Connect(url)
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	subject := stream + ".events"
	config := jetstream.StreamConfig{
		Name: stream, Subjects: []string{subject}, Replicas: 3, Storage: jetstream.FileStorage,
		AllowBatchPublish: os.Args[1] == "fast",
	}
	// The servers need a moment to elect who places a stream.
	var made jetstream.Stream
	for tries := 0; ; tries++ {
		if made, err = js.CreateStream(context.Background(), config); err == nil {
			break
		} else if tries == 100 {
			log.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	payload := event(loneBytes)
	acked := single(warm, span, func() {
		_, err := js.Publish(context.Background(), subject, payload)
		must(err)
	})
	for _, size := range sizes {
		acked += window(nc, subject, size, warm, span)
	}
	info, err := made.Info(context.Background())
	must(err)
	showKept(acked, info.State.Msgs)
}
