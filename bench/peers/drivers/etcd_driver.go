// Drives etcd by its own client: ADDRESS,ADDRESS,ADDRESS PREFIX WARM SECONDS.
//
// An event is a key of its own.  Many go into one transaction, as many transactions are in flight
// as keep etcd busy: without the batches it is several times slower.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	lone    = 1000
	batch   = 100 // a transaction may have 128 operations
	workers = 64
)

var next atomic.Int64

func event(size int) string {
	payload := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(payload)
	return string(payload)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func seconds(text string) time.Duration {
	value, err := strconv.ParseFloat(text, 64)
	must(err)
	return time.Duration(value * float64(time.Second))
}

func key(prefix string) string { return fmt.Sprintf("%s/%016d", prefix, next.Add(1)) }

// One append after another.
func single(client *clientv3.Client, prefix string, warm, span time.Duration) (acked int64) {
	payload, times := event(1024), []time.Duration{}
	counted := time.Now().Add(warm)
	end := counted.Add(span)
	for started := time.Now(); len(times) < lone && started.Before(end); acked++ {
		_, err := client.Put(context.Background(), key(prefix), payload)
		must(err)
		now := time.Now()
		if started.After(counted) {
			times = append(times, now.Sub(started))
		}
		started = now
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	n := len(times)
	fmt.Printf("{\"test\": \"lone 1024B\", \"p50_us\": %d, \"p99_us\": %d, \"appends\": %d}\n",
		times[n/2].Microseconds(), times[n*99/100].Microseconds(), n)
	return acked
}

// Transactions of many events, many in flight.
func window(client *clientv3.Client, prefix string, size int, warm, span time.Duration) int64 {
	var acked atomic.Int64
	var done sync.WaitGroup
	payload := event(size)
	end := time.Now().Add(warm + span)
	for range workers {
		done.Add(1)
		go func() {
			defer done.Done()
			for time.Now().Before(end) {
				puts := make([]clientv3.Op, batch)
				for i := range puts {
					puts[i] = clientv3.OpPut(key(prefix), payload)
				}
				_, err := client.Txn(context.Background()).Then(puts...).Commit()
				must(err)
				acked.Add(batch)
			}
		}()
	}
	time.Sleep(warm)
	from, before := time.Now(), acked.Load()
	time.Sleep(time.Until(end))
	rate := float64(acked.Load()-before) / time.Since(from).Seconds()
	done.Wait()
	fmt.Printf("{\"test\": \"window %dB\", \"events_s\": %.0f}\n", size, rate)
	return acked.Load()
}

func main() {
	prefix := os.Args[2]
	warm, span := seconds(os.Args[3]), seconds(os.Args[4])
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(os.Args[1], ","), DialTimeout: 10 * time.Second,
	})
	must(err)
	_, err = client.Put(context.Background(), key(prefix), "first") // waits for an election
	must(err)
	acked := 1 + single(client, prefix, warm, span)
	acked += window(client, prefix, 100, warm, span)
	acked += window(client, prefix, 1024, warm, span)
	held, err := client.Get(context.Background(), prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(err)
	fmt.Printf("{\"test\": \"kept\", \"acked\": %d, \"held\": %d}\n", acked, held.Count)
}
