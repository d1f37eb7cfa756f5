package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/tools/internal/objects"
	"github.com/isthmus-mesh/isthmus/tools/internal/planeproc"
)

// istiod is Istio's control plane beside an API server of its own. What it tells Envoy goes through a relay.
type istiod struct {
	server  *apiserver.Server
	plane   *planeproc.Process
	objects *objects.Cluster
	relay   *relay
	applied map[string]string // manifests by reference
	refused error             // what the API server has not taken of the fixture
}

// relayPort is where Envoy finds the relay, at the hub.
const relayPort = 15011

func startIstiod(ctx context.Context, program string) (*istiod, error) {
	bin, root, err := apiserver.Find()
	if err != nil {
		return nil, err
	}
	crds, err := filepath.Glob(filepath.Join(root, "operator", "crds", "*.yaml"))
	if err != nil {
		return nil, err
	}
	s := &istiod{applied: map[string]string{}}
	if s.server, err = apiserver.Start(ctx, apiserver.Config{Bin: bin, CRDs: crds}); err != nil {
		return nil, err
	}
	if err := s.start(ctx, program); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *istiod) start(ctx context.Context, program string) error {
	var err error
	if s.objects, err = objects.New(s.server.REST()); err != nil {
		return err
	}
	if err := s.apply(ctx, worldYAML("service", nil, variation{}), ""); err != nil {
		return err
	}
	s.plane, err = planeproc.Start(ctx, planeproc.Command{Program: program, Env: []string{
		"PILOT_ENABLE_AMBIENT=true", "PILOT_ENABLE_GATEWAY_API_STATUS=false", "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER=false", "AMBIENT_ENABLE_STATUS=false",
		"PILOT_ENABLE_IP_AUTOALLOCATE=true",
	}}, s.server.Dir(), s.server.REST())
	if err != nil {
		return err
	}
	s.relay, err = startRelay(ctx, net.JoinHostPort(hub().String(), fmt.Sprint(relayPort)), s.plane.GRPC)
	return err
}

func (s *istiod) stop() {
	if s.relay != nil {
		s.relay.stop()
	}
	if s.plane != nil {
		s.plane.Stop()
	}
	s.server.Stop()
}

// apply makes the manifests, with the mesh configuration, all there is.
func (s *istiod) apply(ctx context.Context, manifests, mesh string) error {
	all, err := parseObjects(manifests)
	if err != nil {
		return err
	}
	all = append(all, endpointSlices(all)...)
	all = append(all, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "istio", "namespace": "istio-system"},
		"data": map[string]any{"mesh": "trustDomain: cluster.local\n" + mesh},
	}})
	wanted := map[string]string{}
	var failed error
	for _, o := range all {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return err
		}
		ref := objects.Ref(o)
		wanted[ref] = string(text)
		if s.applied[ref] == string(text) {
			continue
		}
		if err := s.objects.Apply(ctx, o); err != nil {
			delete(wanted, ref)
			failed = errors.Join(failed, err)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(s.applied)) {
		if _, still := wanted[ref]; !still && !strings.HasPrefix(ref, "Namespace/") {
			failed = errors.Join(failed, s.objects.Remove(ctx, ref))
		}
	}
	s.applied = wanted
	return failed
}

// parseObjects reads manifests; namespaces come first. What an API server does not take from anybody is left out.
func parseObjects(manifests string) ([]*unstructured.Unstructured, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	var out []*unstructured.Unstructured
	for {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		content := map[string]any{}
		if err := yaml.Unmarshal(raw, &content); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, raw)
		}
		o := &unstructured.Unstructured{Object: content}
		if len(content) == 0 {
			continue
		}
		o.SetUID("")
		unstructured.RemoveNestedField(o.Object, "metadata", "uid")
		if o.GetNamespace() == "" && !slices.Contains([]string{"Namespace", "GatewayClass", "Node"}, o.GetKind()) {
			o.SetNamespace("default")
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return order(a) - order(b) })
	return out, nil
}

func order(o *unstructured.Unstructured) int {
	if o.GetKind() == "Namespace" {
		return 0
	}
	return 1
}

// endpointSlices are what Kubernetes' controllers make of Services and Pods.
func endpointSlices(all []*unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, service := range all {
		selector, _, _ := unstructured.NestedStringMap(service.Object, "spec", "selector")
		if service.GetKind() != "Service" || service.GetAPIVersion() != "v1" || len(selector) == 0 {
			continue
		}
		var endpoints []any
		for _, pod := range all {
			if pod.GetKind() != "Pod" || pod.GetNamespace() != service.GetNamespace() || !selects(selector, pod.GetLabels()) {
				continue
			}
			ip, _, _ := unstructured.NestedString(pod.Object, "status", "podIP")
			node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
			endpoints = append(endpoints, map[string]any{
				"addresses": []any{ip}, "conditions": map[string]any{"ready": ready(pod)}, "nodeName": node,
				"targetRef": map[string]any{"kind": "Pod", "name": pod.GetName(), "namespace": pod.GetNamespace()},
			})
		}
		specs, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
		var ports []any
		for _, p := range specs {
			p, ok := p.(map[string]any)
			if !ok {
				continue
			}
			target := p["targetPort"]
			if target == nil {
				target = p["port"]
			}
			port := map[string]any{"port": target, "protocol": "TCP"}
			if p["name"] != nil {
				port["name"] = p["name"]
			}
			ports = append(ports, port)
		}
		out = append(out, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata": map[string]any{
				"name": service.GetName() + "-1", "namespace": service.GetNamespace(), "labels": map[string]any{"kubernetes.io/service-name": service.GetName()},
			},
			"endpoints": endpoints, "ports": ports,
		}})
	}
	return out
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func ready(pod *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Ready" {
			return c["status"] == "True"
		}
	}
	return false
}
