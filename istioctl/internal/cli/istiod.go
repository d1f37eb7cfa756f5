package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// Istiod reaches the control plane's pods through the cluster's API: what they serve to their own machine, they serve through that.
type Istiod struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

// Istiod returns the way to the control plane.
func (g *Globals) Istiod() (*Istiod, error) {
	config, err := g.REST()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Istiod{config: config, client: client, namespace: g.IstioNamespace}, nil
}

// Pods returns the control plane's running pods, of a revision or, when it is empty, all.
func (i *Istiod) Pods(ctx context.Context, revision string) ([]string, error) {
	selector := "app=istiod"
	if revision != "" {
		selector += ",istio.io/rev=" + revision
	}
	pods, err := i.client.CoreV1().Pods(i.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("look for the control plane in namespace %s: %w", i.namespace, err)
	}
	var out []string
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			out = append(out, p.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Get returns what a pod answers to GET path on a port of its own machine.
func (i *Istiod) Get(ctx context.Context, pod string, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	local, stop, err := i.forward(ctx, pod, port)
	if err != nil {
		return nil, fmt.Errorf("reach port %d of %s/%s: %w", port, i.namespace, pod, err)
	}
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", local, path), nil)
	if err != nil {
		return nil, err
	}
	// The port goes away with this call, so no connection may outlive it; and no proxy is between this machine and itself.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s of %s/%s: %s", path, i.namespace, pod, response.Status)
	}
	return body, nil
}

// forward opens a port of this machine that leads to one of a pod, until stop is called.
func (i *Istiod) forward(ctx context.Context, pod string, port int) (local uint16, stop func(), err error) {
	transport, upgrader, err := spdy.RoundTripperFor(i.config)
	if err != nil {
		return 0, nil, err
	}
	url := i.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(i.namespace).Name(pod).SubResource("portforward").URL()
	end, ready := make(chan struct{}), make(chan struct{})
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, end, ready, io.Discard, io.Discard)
	if err != nil {
		return 0, nil, err
	}
	failed, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		failed <- forwarder.ForwardPorts()
	}()
	select {
	case <-ready:
	case err := <-failed:
		return 0, nil, errors.Join(errors.New("no connection"), err)
	case <-ctx.Done():
		close(end)
		return 0, nil, ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil || len(ports) == 0 {
		close(end)
		return 0, nil, errors.Join(errors.New("no port"), err)
	}
	return ports[0].Local, func() {
		close(end)
		<-ended
	}, nil
}
