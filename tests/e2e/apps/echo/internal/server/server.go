// Package server answers with what it saw of a request, on many ports and in many protocols.
package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Config of a server.
type Config struct {
	// HTTP, GRPC, TCP and UDP are ports; those also in TLS speak TLS, those in ServerFirst greet.
	HTTP, GRPC, TCP, UDP, TLS, ServerFirst []int
	// Bind is the address to listen on, empty for all.
	Bind string
	// Version, Cluster and Hostname are told.
	Version, Cluster, Hostname string
	// CertFile and KeyFile are for TLS; absent files mean a certificate made up at the start.
	CertFile, KeyFile string
	Log               *slog.Logger
	// Started, if set, is told the addresses by port as configured.
	Started func(map[int]net.Addr)
}

// server is one running server.
type server struct {
	Config
	tls   *tls.Config
	tasks sync.WaitGroup
}

// drain is how long open requests may go on at the end.
const drain = 5 * time.Second

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	s := &server{Config: cfg}
	if len(cfg.TLS) > 0 {
		certificate, err := cfg.certificate()
		if err != nil {
			return err
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	}
	serving, stop := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer stop()
	addresses := map[int]net.Addr{}
	for _, protocol := range []struct {
		ports []int
		serve func(ctx context.Context, l net.Listener, p port)
	}{{cfg.HTTP, s.serveHTTP}, {cfg.GRPC, s.serveGRPC}, {cfg.TCP, s.serveTCP}} {
		for _, number := range protocol.ports {
			listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(cfg.Bind, strconv.Itoa(number)))
			if err != nil {
				return err
			}
			addresses[number] = listener.Addr()
			p := port{number: number, tls: slices.Contains(cfg.TLS, number), first: slices.Contains(cfg.ServerFirst, number)}
			s.tasks.Go(func() { protocol.serve(serving, listener, p) })
		}
	}
	for _, number := range cfg.UDP {
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(cfg.Bind, strconv.Itoa(number)))
		if err != nil {
			return err
		}
		addresses[number] = conn.LocalAddr()
		s.tasks.Go(func() { s.serveUDP(serving, conn, number) })
	}
	cfg.Log.Info("serving", "http", cfg.HTTP, "grpc", cfg.GRPC, "tcp", cfg.TCP, "udp", cfg.UDP, "tls", cfg.TLS, "version", cfg.Version)
	if cfg.Started != nil {
		cfg.Started(addresses)
	}
	<-ctx.Done()
	return nil
}

// port is one that is served.
type port struct {
	number     int
	tls, first bool
}

// certificate is the configured one, or one made up.
func (c Config) certificate() (tls.Certificate, error) {
	if c.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return certificate, err
		}
		c.Log.Info("no certificate in files, using one made up", "error", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"*", "localhost", c.Hostname},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make up a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// host is an address without its port.
func host(address net.Addr) string {
	h, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return h
}
