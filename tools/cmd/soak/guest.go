package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// podOf is what a pod is made of. Its program does nothing: what it serves and asks, this process does in its network namespace.
type podOf struct {
	namespace, name, account, node string
	labels                         string // further ones, as in YAML
	// grace is how long it stays after it is told to end.
	grace time.Duration
}

func (p podOf) yaml() string {
	account := p.account
	if account == "" {
		account = "default"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[3]s, namespace: %[2]s, labels: {app: %[3]s%[4]s}}
spec:
  serviceAccountName: %[1]s
  nodeSelector: {kubernetes.io/hostname: %[5]s}
  terminationGracePeriodSeconds: %[6]d
  containers: [{name: app, image: sleep}]
`, account, p.namespace, p.name, p.labels, p.node, int(p.grace.Seconds()))
}

// guest is a pod, and sockets in it.
type guest struct {
	namespace, name, node string
	ip                    netip.Addr
	ns                    *netx.NS
	leaving               sync.Once
}

// pod makes a pod, and returns when it is ready, and in the mesh unless it is the mesh's own.
func (b *bed) pod(ctx context.Context, of podOf) (*guest, error) {
	if err := b.apply(ctx, of.yaml()); err != nil {
		return nil, err
	}
	g, err := b.adopt(ctx, of.namespace, of.name)
	if err == nil {
		b.pods = append(b.pods, g)
	}
	return g, err
}

// adopt waits for a pod and opens its network namespace. The caller lets go of it.
func (b *bed) adopt(ctx context.Context, namespace, name string) (*guest, error) {
	g := &guest{namespace: namespace, name: name}
	err := b.eventually(ctx, "pod "+name+" is ready", func() error {
		pods, err := b.status(ctx, namespace, name)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if p.Name == name && p.Ready && len(p.IPs) > 0 && (namespace == meshNamespace || p.Redirection == "enabled") {
				g.node = p.Node
				g.ip, err = netip.ParseAddr(p.IPs[0])
				return err
			}
		}
		return errors.New("it is not")
	})
	if err != nil {
		return nil, err
	}
	file, err := b.box.PodNetNS(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	g.ns, err = netx.NewNS(file, netx.Options{})
	return g, err
}

// leave lets go of the pod's network namespace.
func (g *guest) leave() { g.leaving.Do(func() { g.ns.Close() }) }

// dial connects from within the pod.
func (g *guest) dial(ctx context.Context, to netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return g.ns.Dial(ctx, "tcp", netip.AddrPortFrom(to, port), netip.Addr{})
}

// end ends a pod, and returns when it is gone.
func (b *bed) end(ctx context.Context, g *guest) error {
	g.leave()
	if err := b.box.DeleteObject(ctx, "Pod", g.namespace, g.name); err != nil {
		return err
	}
	return b.eventually(ctx, "pod "+g.name+" is gone", func() error {
		pods, err := b.status(ctx, g.namespace, g.name)
		for _, p := range pods {
			if p.Name == g.name {
				return fmt.Errorf("it is %s", p.Phase)
			}
		}
		return err
	})
}
