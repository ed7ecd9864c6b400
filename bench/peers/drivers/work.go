// What the Go drivers share: the sizes, the payload, the clock and the lines that they print.
package main

import (
	"fmt"
	"log"
	"math/rand"
	"sort"
	"strconv"
	"time"
)

const (
	lone      = 1000
	loneBytes = 1024
)

var sizes = []int{100, 1024}

// A payload that does not compress.
func event(size int) []byte {
	payload := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(payload)
	return payload
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

// One append after another.
func single(warm, span time.Duration, add func()) (acked uint64) {
	times := []time.Duration{}
	counted := time.Now().Add(warm)
	end := counted.Add(span)
	for started := time.Now(); len(times) < lone && started.Before(end); acked++ {
		add()
		now := time.Now()
		if started.After(counted) {
			times = append(times, now.Sub(started))
		}
		started = now
	}
	n := len(times)
	if n == 0 {
		log.Fatal("not one append was acknowledged in time")
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	fmt.Printf("{\"test\": \"lone %dB\", \"p50_us\": %d, \"p99_us\": %d, \"appends\": %d}\n",
		loneBytes, times[n/2].Microseconds(), times[n*99/100].Microseconds(), n)
	return acked
}

func showWindow(size int, acked uint64, took time.Duration) {
	rate := float64(acked) / took.Seconds()
	fmt.Printf("{\"test\": \"window %dB\", \"events_s\": %.0f}\n", size, rate)
}

func showKept(acked, held uint64) {
	fmt.Printf("{\"test\": \"kept\", \"acked\": %d, \"held\": %d}\n", acked, held)
}
