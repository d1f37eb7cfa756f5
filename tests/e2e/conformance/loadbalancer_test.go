//go:build e2e

package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// loadBalancerRange holds the addresses that Services of type LoadBalancer get. It is one for documentation, which nothing on the
// network of the machine has.
const loadBalancerRange = "198.51.100.0/24"

// loadBalancer stands in for that of a cloud: it gives Services addresses, and leads the machine's connections to them to a node of the
// cluster, which spreads them over the pods as kube-proxy does with the addresses of load balancers.
type loadBalancer struct {
	client kubernetes.Interface
	pool   netip.Prefix
	given  map[netip.Addr]string
}

// runLoadBalancer starts one that ends with the test. It takes root, for the route.
func runLoadBalancer(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	b := &loadBalancer{client: client, pool: netip.MustParsePrefix(loadBalancerRange), given: map[netip.Addr]string{}}
	name, node, err := b.node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Until kube-proxy knows an address, connections to it have to be refused, as a cloud's load balancer does: a first packet that went
	// astray would leave an entry in the node's connection tracking, by which all that follow of that connection go astray, too.
	if out, err := exec.CommandContext(t.Context(), "docker", "exec", name, "ip", "route", "replace", "unreachable", loadBalancerRange).CombinedOutput(); err != nil {
		t.Fatalf("have the node %s refuse what nothing serves of %s: %v\n%s", name, loadBalancerRange, err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "ip", "route", "replace", loadBalancerRange, "via", node).CombinedOutput(); err != nil {
		t.Fatalf("lead %s to the node %s: %v\n%s", loadBalancerRange, node, err, out)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run(ctx, t)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "ip", "route", "del", loadBalancerRange, "via", node).CombinedOutput(); err != nil {
			t.Logf("take the route to %s away: %v\n%s", loadBalancerRange, err, out)
		}
	})
}

// node is the name and the address of one of the cluster's nodes.
func (b *loadBalancer) node(ctx context.Context) (name, address string, err error) {
	nodes, err := b.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", "", fmt.Errorf("list the nodes: %w", err)
	}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && ip.Is4() {
				return n.Name, a.Address, nil
			}
		}
	}
	return "", "", errors.New("no node of the cluster has an IPv4 address")
}

// run looks at the Services a few times a second, which is simpler than to watch them, and quick enough.
func (b *loadBalancer) run(ctx context.Context, t *testing.T) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := b.serve(ctx); err != nil && ctx.Err() == nil {
			t.Logf("load balancer: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// serve gives each Service that lacks one an address, and takes back those of Services that are gone.
func (b *loadBalancer) serve(ctx context.Context) error {
	services, err := b.client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	clear(b.given)
	var lacking []*corev1.Service
	for i := range services.Items {
		s := &services.Items[i]
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.LoadBalancerClass != nil {
			continue
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			lacking = append(lacking, s)
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			if ip, err := netip.ParseAddr(in.IP); err == nil {
				b.given[ip] = s.Namespace + "/" + s.Name
			}
		}
	}
	var problems []error
	for _, s := range lacking {
		problems = append(problems, b.give(ctx, s))
	}
	return errors.Join(problems...)
}

func (b *loadBalancer) give(ctx context.Context, s *corev1.Service) error {
	ip, err := b.free(s.Spec.LoadBalancerIP)
	if err != nil {
		return fmt.Errorf("service %s/%s: %w", s.Namespace, s.Name, err)
	}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip.String()}}
	if _, err := b.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{}); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // it has changed since it was read: next time
		}
		return fmt.Errorf("write the address of the Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	b.given[ip] = s.Namespace + "/" + s.Name
	return nil
}

// free is the address that is wanted, or else the first one that nobody has.
func (b *loadBalancer) free(wanted string) (netip.Addr, error) {
	if wanted != "" {
		ip, err := netip.ParseAddr(wanted)
		switch {
		case err != nil || !b.pool.Contains(ip):
			return ip, fmt.Errorf("%s is not in %s", wanted, b.pool)
		case b.given[ip] != "":
			return ip, fmt.Errorf("%s belongs to %s", wanted, b.given[ip])
		}
		return ip, nil
	}
	for ip := b.pool.Addr().Next(); b.pool.Contains(ip.Next()); ip = ip.Next() {
		if b.given[ip] == "" {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are given", b.pool)
}
