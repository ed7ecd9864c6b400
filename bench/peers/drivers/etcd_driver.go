// Drives etcd by its own client: ADDRESS,ADDRESS,ADDRESS PREFIX WARM SECONDS.
//
// An event is a key of its own.  Many go into one transaction, as many transactions are in flight
// as keep etcd busy: without the batches it is several times slower.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	batch   = 100 // a transaction may have 128 operations
	workers = 64
)

var next atomic.Int64

func key(prefix string) string { return fmt.Sprintf("%s/%016d", prefix, next.Add(1)) }

// Transactions of many events, many in flight.
func window(client *clientv3.Client, prefix string, size int, warm, span time.Duration) uint64 {
	var acked atomic.Uint64
	var done sync.WaitGroup
	payload := string(event(size))
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
	counted, took := acked.Load()-before, time.Since(from)
	done.Wait()
	showWindow(size, counted, took)
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
	payload := string(event(loneBytes))
	acked := 1 + single(warm, span, func() {
		_, err := client.Put(context.Background(), key(prefix), payload)
		must(err)
	})
	for _, size := range sizes {
		acked += window(client, prefix, size, warm, span)
	}
	held, err := client.Get(context.Background(), prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(err)
	showKept(acked, uint64(held.Count))
}
