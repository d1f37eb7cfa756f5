package extauthz

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

const (
	partialHeader = "x-envoy-auth-partial-body"
	checkPath     = "/envoy.service.auth.v3.Authorization/Check"
)

// Question is a request to the authorizer.
type Question struct {
	Head *httpmsg.Head
	Body []byte
}

// Ask makes the question about a request. body is as much of the request's as [Filter.Body] asks for, partial whether there is more.
func (f *Filter) Ask(i *exchange.Info, body []byte, partial bool) (Question, error) {
	limit, _ := f.Body(i)
	if f.GRPC {
		return f.askGRPC(i, body, partial, limit > 0)
	}
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Scheme, h.Authority, h.Path = httpmsg.HTTP11, i.Head.Method, "http", i.Head.Authority, f.pathPrefix+i.Head.Path
	if i.Head.Method == "CONNECT" {
		h.Method = "POST" // a question opens no tunnel
		if h.Path == "" {
			h.Path = "/"
		}
	}
	for name, value := range f.told(i) {
		if name[0] != ':' && !framing(name) {
			h.Header.Add(name, value)
		}
	}
	if limit > 0 && len(body) > 0 {
		h.Header.Set(partialHeader, strconv.FormatBool(partial))
	}
	f.add.Apply(&h.Header, i)
	h.Header.Set("x-envoy-internal", "true")
	if f.Timeout > 0 {
		h.Header.Set("x-envoy-expected-rq-timeout-ms", strconv.FormatInt(f.Timeout.Milliseconds(), 10))
	}
	h.ContentLength = int64(len(body))
	return Question{Head: h, Body: body}, nil
}

// told are the headers that the authorizer is told, each once.
func (f *Filter) told(i *exchange.Info) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for _, name := range [...]string{":authority", ":method", ":path", ":scheme", "content-length"} {
			if v, ok := exchange.Header(i.Head, name); ok && f.tells(name) && !yield(name, v) {
				return
			}
		}
		fields := i.Head.Header.Fields()
	next:
		for n := range fields {
			name := fields[n].Key
			for _, before := range fields[:n] {
				if before.Key == name {
					continue next
				}
			}
			if name == "" || !f.tells(name) {
				continue
			}
			if v, ok := i.Head.Header.Joined(name); ok && !yield(name, v) {
				return
			}
		}
	}
}

func (f *Filter) askGRPC(i *exchange.Info, body []byte, partial, withBody bool) (Question, error) {
	r := &authv3.AttributeContext_HttpRequest{
		Id: strconv.FormatUint(i.Random, 10), Method: i.Head.Method, Path: text(i.Head.Path), Host: text(i.Head.Authority), Scheme: i.Head.Scheme,
		Protocol: protocolOf(i.Head.Version), Size: int64(len(body)), Headers: map[string]string{},
	}
	for name, value := range f.told(i) {
		r.Headers[text(name)] = text(value)
	}
	if withBody && len(body) > 0 {
		r.Headers[partialHeader] = strconv.FormatBool(partial)
		if f.body.raw {
			r.RawBody = body
		} else {
			r.Body = text(string(body))
		}
	}
	return f.check(&authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address: address(i.Conn.Source), Principal: i.Conn.Identity, Service: text(i.Head.Header.Value("x-envoy-downstream-service-cluster")),
		},
		Destination: &authv3.AttributeContext_Peer{Address: address(i.Conn.Destination), Principal: i.Conn.LocalIdentity},
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.New(i.Now), Http: r},
	})
}

// check makes the question by gRPC.
func (f *Filter) check(about *authv3.AttributeContext) (Question, error) {
	payload, err := framed(&authv3.CheckRequest{Attributes: about})
	if err != nil {
		return Question{}, err
	}
	h := &httpmsg.Head{}
	h.Reset()
	h.Version, h.Method, h.Scheme, h.Authority, h.Path = httpmsg.HTTP2, "POST", "http", f.authority, checkPath
	h.Header.Add("content-type", "application/grpc")
	h.Header.Add("te", "trailers")
	if f.Timeout > 0 {
		h.Header.Add("grpc-timeout", grpcTimeout(f.Timeout))
	}
	return Question{Head: h, Body: payload}, nil
}

// grpcTimeout is at most eight digits and a unit.
func grpcTimeout(d time.Duration) string {
	if ms := d.Milliseconds(); ms < 1e8 {
		return strconv.FormatInt(max(1, ms), 10) + "m"
	}
	return strconv.FormatInt(min(int64(d/time.Second), 99999999), 10) + "S"
}

// framed puts the prefix of a gRPC message before it.
func framed(m proto.Message) ([]byte, error) {
	out, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 5), m)
	if err != nil {
		return nil, fmt.Errorf("encode the question to the authorizer: %w", err)
	}
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-5)) //nolint:gosec // heads and bodies are bounded
	return out, nil
}

// text makes it what a string of a message may be.
func text(s string) string { return strings.ToValidUTF8(s, "!") }

func address(a netip.AddrPort) *corev3.Address {
	if !a.IsValid() {
		return nil
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().Unmap().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

func protocolOf(v httpmsg.Version) string { return v.String() }
