// Command external-scaler is a scaler for the tests of the external triggers. It does what it is told over HTTP:
//
//	GET  /                          where it listens, its certificates
//	GET  /objects/NS/NAME           what it was asked about an object
//	DELETE /objects/NS/NAME         forgets what it was asked and told, open streams apart
//	PUT  /objects/NS/NAME           what it answers about an object from now on (see State)
//	POST /objects/NS/NAME/active    sends one activation on the object's open streams; body: true or false
//	POST /objects/NS/NAME/specs     sends the metric specs of the state on the object's open streams
//	POST /objects/NS/NAME/end       ends the object's open streams; body: a gRPC status code, 0 for a normal end
//
// All its listeners serve the same objects.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

func main() {
	control := flag.String("control", "127.0.0.1:0", "address of the HTTP control")
	directory := flag.String("directory", ".", "folder for the Unix socket")
	flag.Parse()
	if err := run(*control, *directory); err != nil {
		log.Fatal(err)
	}
}

func run(control, directory string) error {
	contract, err := compileContract()
	if err != nil {
		return err
	}
	certificates, err := makeCertificates()
	if err != nil {
		return err
	}
	objects := newObjects()
	socket := filepath.Join(directory, "external-scaler.sock")
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listeners := []struct {
		name, network, address string
		old                    bool
		tls                    *tls.Config
		age                    time.Duration // after which connections are asked to go
	}{
		{name: "plain", network: "tcp", address: "127.0.0.1:0"},
		{name: "old", network: "tcp", address: "127.0.0.1:0", old: true},
		{name: "tls", network: "tcp", address: "127.0.0.1:0", tls: certificates.server(false)},
		{name: "mtls", network: "tcp", address: "127.0.0.1:0", tls: certificates.server(true)},
		{name: "unix", network: "unix", address: socket},
		{name: "restless", network: "tcp", address: "127.0.0.1:0", age: 20 * time.Millisecond},
	}
	places := map[string]string{
		"ca": certificates.ca, "clientCert": certificates.clientCert, "clientKey": certificates.clientKey,
	}
	for _, place := range listeners {
		listener, err := net.Listen(place.network, place.address)
		if err != nil {
			return err
		}
		var options []grpc.ServerOption
		if place.tls != nil {
			options = append(options, grpc.Creds(credentials.NewTLS(place.tls)))
		}
		if place.age > 0 {
			options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: place.age}))
		}
		server := grpc.NewServer(options...)
		server.RegisterService(contract.service(objects, place.old), struct{}{})
		places[place.name] = listener.Addr().String()
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	return http.ListenAndServe(control, handler(objects, places))
}

func handler(objects *Objects, places map[string]string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { reply(w, places) })
	object := func(r *http.Request) *Object { return objects.get(r.PathValue("ns"), r.PathValue("name")) }
	mux.HandleFunc("GET /objects/{ns}/{name}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, object(r).seen())
	})
	mux.HandleFunc("DELETE /objects/{ns}/{name}", func(_ http.ResponseWriter, r *http.Request) { object(r).forget() })
	mux.HandleFunc("PUT /objects/{ns}/{name}", func(w http.ResponseWriter, r *http.Request) {
		var state State
		if read(w, r, &state) {
			object(r).set(state)
		}
	})
	mux.HandleFunc("POST /objects/{ns}/{name}/active", func(w http.ResponseWriter, r *http.Request) {
		var active bool
		if read(w, r, &active) {
			object(r).send(event{active: &active})
		}
	})
	mux.HandleFunc("POST /objects/{ns}/{name}/specs", func(_ http.ResponseWriter, r *http.Request) {
		object(r).send(event{specs: true})
	})
	mux.HandleFunc("POST /objects/{ns}/{name}/end", func(w http.ResponseWriter, r *http.Request) {
		var code uint32
		if read(w, r, &code) {
			object(r).send(event{end: &code})
		}
	})
	return mux
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		http.Error(w, fmt.Sprintf("body: %v", err), http.StatusBadRequest)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}
