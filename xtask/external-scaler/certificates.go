package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// Certificates are made anew for every start: an authority, and what it signed for the server and for a client.
type Certificates struct {
	ca, clientCert, clientKey string
	pool                      *x509.CertPool
	pair                      tls.Certificate
}

func makeCertificates() (*Certificates, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authority := template(1, "external scaler test authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		return nil, err
	}
	made := &Certificates{ca: encode("CERTIFICATE", der), pool: x509.NewCertPool()}
	made.pool.AppendCertsFromPEM([]byte(made.ca))

	server := template(2, "external scaler")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	serverCert, serverKey, err := issue(server, authority, key)
	if err != nil {
		return nil, err
	}
	if made.pair, err = tls.X509KeyPair([]byte(serverCert), []byte(serverKey)); err != nil {
		return nil, err
	}
	client := template(3, "operator")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	made.clientCert, made.clientKey, err = issue(client, authority, key)
	return made, err
}

func (c *Certificates) server(mutual bool) *tls.Config {
	config := &tls.Config{Certificates: []tls.Certificate{c.pair}, ClientCAs: c.pool, MinVersion: tls.VersionTLS12}
	if mutual {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config
}

func template(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(30 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func issue(template, authority *x509.Certificate, authorityKey *ecdsa.PrivateKey) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, private.Public(), authorityKey)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER), err
}

func encode(kind string, der []byte) string {
	var text bytes.Buffer
	// Writing to a buffer does not fail.
	_ = pem.Encode(&text, &pem.Block{Type: kind, Bytes: der})
	return text.String()
}
