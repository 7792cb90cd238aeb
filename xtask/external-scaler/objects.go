package main

import (
	"sync"
	"time"
)

// State is what the scaler answers about one object.
type State struct {
	Metrics []Metric           `json:"metrics"`
	Values  map[string][]Value `json:"values"` // by metric
	Active  bool               `json:"active"`
	Delay   int                `json:"delay"`   // milliseconds before each unary reply
	Code    uint32             `json:"code"`    // gRPC status of every call, streams included, unless 0
	Message string             `json:"message"` // of that status; "{KEY}" stands for that key's metadata
}

// Metric is one metric spec.
type Metric struct {
	Name   string  `json:"name"`
	Target int64   `json:"target"`
	Float  float64 `json:"float"`
}

// Value is one value of a metric.
type Value struct {
	Value int64   `json:"value"`
	Float float64 `json:"float"`
}

// Seen is what the scaler was asked about one object.
type Seen struct {
	Calls     []string          `json:"calls"`    // methods, in their order
	Metadata  map[string]string `json:"metadata"` // of the last call
	Asked     string            `json:"asked"`    // metric name of the last GetMetrics
	Peers     []string          `json:"peers"`    // clients' addresses, each once
	Authority string            `json:"authority"`
	Deadline  bool              `json:"deadline"` // whether the last unary call carried one
	Streams   map[string]int    `json:"streams"`  // open streams by method
}

// event is what open streams are told.
type event struct {
	active *bool
	specs  bool
	end    *uint32
}

// Object is what the scaler knows about one ScaledObject.
type Object struct {
	mutex   sync.Mutex
	state   State
	record  Seen
	streams map[chan event]string // method by stream
}

// Objects are all that somebody asked about or told of.
type Objects struct {
	mutex sync.Mutex
	byKey map[[2]string]*Object
}

func newObjects() *Objects { return &Objects{byKey: map[[2]string]*Object{}} }

func (o *Objects) get(namespace, name string) *Object {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	key := [2]string{namespace, name}
	if o.byKey[key] == nil {
		o.byKey[key] = &Object{streams: map[chan event]string{}}
	}
	return o.byKey[key]
}

func (o *Object) set(state State) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.state = state
}

func (o *Object) forget() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.state, o.record = State{}, Seen{}
}

func (o *Object) seen() Seen {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	seen := o.record
	seen.Streams = map[string]int{}
	for _, method := range o.streams {
		seen.Streams[method]++
	}
	return seen
}

// note records a call and gives the present state.
func (o *Object) note(update func(*Seen)) State {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	update(&o.record)
	return o.state
}

func (o *Object) open(method string) chan event {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	stream := make(chan event, 64)
	o.streams[stream] = method
	return stream
}

func (o *Object) close(stream chan event) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	delete(o.streams, stream)
}

func (o *Object) send(e event) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for stream := range o.streams {
		select {
		case stream <- e:
		case <-time.After(time.Second):
		}
	}
}
