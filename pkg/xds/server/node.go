package server

import (
	"context"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// authenticate identifies the caller of a stream.
func (s *Server) authenticate(ctx context.Context) (Peer, error) {
	if s.cfg.Authenticate == nil {
		return Peer{}, nil
	}
	p, err := s.cfg.Authenticate(ctx)
	if err == nil {
		return p, nil
	}
	if _, ok := status.FromError(err); ok {
		return Peer{}, err
	}
	return Peer{}, status.Errorf(codes.Unauthenticated, "authentication failure: %v", err)
}

// admit checks the node that a stream's first request names against who the caller is.
func admit(node *corev3.Node, peer Peer) error {
	if node.GetId() == "" {
		return status.Error(codes.InvalidArgument, "missing node information")
	}
	if strings.Count(node.GetId(), "~") != 3 {
		return status.Errorf(codes.InvalidArgument, "node id %q is not of the form type~ip~name~domain", node.GetId())
	}
	ns := metadataString(node, "NAMESPACE")
	if ns == "" {
		ns, _, _ = strings.Cut(node.GetId()[strings.LastIndexByte(node.GetId(), '~')+1:], ".svc.")
	}
	return permit(node, ns, peer)
}

// admitTool checks the node of a client that asks for debug types only: it need not be a proxy, so it need not have an id.
func admitTool(node *corev3.Node, peer Peer) error {
	ns := metadataString(node, "NAMESPACE")
	if ns == "" {
		return nil
	}
	return permit(node, ns, peer)
}

// permit refuses a caller that claims to be of another namespace than its credentials.
func permit(node *corev3.Node, ns string, peer Peer) error {
	if peer.Namespace != "" && ns != peer.Namespace {
		return status.Errorf(codes.PermissionDenied, "node %q claims namespace %q, but its credentials are of %q", node.GetId(), ns, peer.Namespace)
	}
	return nil
}

func metadataString(node *corev3.Node, key string) string {
	return node.GetMetadata().GetFields()[key].GetStringValue()
}
