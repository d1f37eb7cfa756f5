// Package control asks the control plane by xDS, as proxies do: at an address, or at its pods.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/cli"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// The types that the control plane answers to tools.
const (
	PageType       = "istio.io/debug"
	SynczType      = "istio.io/debug/syncz"
	ConfigDumpType = "istio.io/debug/config_dump"
)

// The control plane's ports for xDS.
const (
	securePort    = 15012
	plaintextPort = 15010
)

// Flags say where the control plane is, and who asks.
type Flags struct {
	Address, CertDir, Authority, Label string
	Port                               int
	Insecure, Plaintext                bool
}

// Add adds the flags.
func (f *Flags) Add(flags *pflag.FlagSet) {
	flags.StringVar(&f.Address, "xds-address", "", "ask by xDS, at this address of the control plane: HOST:PORT")
	flags.StringVar(&f.Label, "xds-label", "", "ask by xDS, the pods with this label (app=istiod unless it is given)")
	flags.IntVar(&f.Port, "xds-port", securePort, "ask by xDS, at this port of the control plane's pods")
	flags.StringVar(&f.CertDir, "cert-dir", "", "ask by xDS, with the client certificate in this directory: cert-chain.pem, key.pem and root-cert.pem")
	flags.StringVar(&f.Authority, "authority", "", "ask by xDS, and expect the control plane's certificate to be for this name")
	flags.BoolVar(&f.Insecure, "insecure", false, "ask by xDS, and take any certificate for the control plane's")
	flags.BoolVar(&f.Plaintext, "plaintext", false, "ask by xDS, without TLS and credentials")
}

// Used is whether to ask by xDS: when any of the flags is given.
func (f *Flags) Used() bool {
	return *f != Flags{} && *f != Flags{Port: securePort}
}

// Check refuses what contradicts itself.
func (f *Flags) Check() error {
	switch {
	case f.Address != "" && f.Label != "":
		return errors.New("an --xds-address or pods by --xds-label, not both")
	case f.Plaintext && (f.CertDir != "" || f.Insecure):
		return errors.New("--plaintext is without TLS: there is no --cert-dir and no --insecure then")
	}
	return nil
}

// Source is what is asked.
type Source struct {
	// Globals and Revision of the command.
	Globals  *cli.Globals
	Revision string
}

// Answer is that of one instance of the control plane.
type Answer struct {
	// Component, ID and Info are who answers.
	Component, ID string
	Info          telemetry.Build
	Response      *discovery.DiscoveryResponse
}

// Ask asks all instances, or the one at the address. Those that do not have what is asked for are left out, unless all are like that.
func (f *Flags) Ask(ctx context.Context, s Source, typeURL string, names ...string) ([]Answer, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	targets, err := f.targets(ctx, s)
	if err != nil {
		return nil, err
	}
	token, err := f.token(ctx, s)
	if err != nil {
		return nil, err
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	var out []Answer
	var missing error
	for _, t := range targets {
		answer, err := t.ask(ctx, typeURL, names)
		switch {
		case status.Code(err) == codes.NotFound:
			missing = f.explain(t.name, err)
		case err != nil:
			return nil, f.explain(t.name, err)
		default:
			out = append(out, answer)
		}
	}
	if len(out) == 0 {
		return nil, missing
	}
	return out, nil
}

// target is an instance to be asked.
type target struct {
	name    string
	address string
	options []grpc.DialOption
}

// maxAnswer bounds what is held in memory.
const maxAnswer = 1 << 30

func (t target) ask(ctx context.Context, typeURL string, names []string) (Answer, error) {
	conn, err := grpc.NewClient(t.address, append(t.options, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))...)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return Answer{}, err
	}
	about := &structpb.Struct{Fields: map[string]*structpb.Value{"GENERATOR": structpb.NewStringValue("event")}}
	node := &corev3.Node{Id: "debug~0.0.0.0~istioctl~cluster.local", Metadata: about}
	// If it was refused before it was sent, Recv tells why.
	_ = stream.Send(&discovery.DiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNames: names})
	response, err := stream.Recv()
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{ID: t.name, Component: "istiod", Response: response}
	var who struct {
		Component, ID string
		Info          telemetry.Build
	}
	if json.Unmarshal([]byte(response.GetControlPlane().GetIdentifier()), &who) == nil && who.ID != "" {
		answer.Component, answer.ID, answer.Info = who.Component, who.ID, who.Info
	}
	return answer, nil
}

// NotFoundError is that no instance has what was asked for.
type NotFoundError struct{ text string }

func (e *NotFoundError) Error() string { return e.text }

// explain says what went wrong, and what to do about it.
func (f *Flags) explain(name string, err error) error {
	s := status.Convert(err)
	hint := ""
	switch s.Code() {
	case codes.NotFound:
		return &NotFoundError{fmt.Sprintf("%s: %s", name, s.Message())}
	case codes.Unavailable, codes.DeadlineExceeded:
		hint = "does it listen there, and with TLS?"
		switch {
		case f.Plaintext:
			hint = "does it listen there, and without TLS? That is usually port 15010"
		case strings.Contains(s.Message(), "x509") || strings.Contains(s.Message(), "certificate"):
			hint = "name what its certificate is for by --authority, whom to trust by root-cert.pem in --cert-dir, or take any by --insecure"
		}
	case codes.Unauthenticated:
		hint = "ask with a client certificate by --cert-dir, or as somebody who may create tokens of the service account default in the system namespace"
	case codes.PermissionDenied:
		hint = "the credentials have to be of the control plane's namespace: name it by --istioNamespace"
	case codes.Unimplemented:
		hint = "is that a control plane?"
	}
	if hint != "" {
		hint = "; " + hint
	}
	return fmt.Errorf("ask %s by xDS: %s%s", name, s.Message(), hint)
}
