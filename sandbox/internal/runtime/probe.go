package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// probe asks a process how it is, until ctx or the process ends: first whether it has started, then whether it is ready
// and alive.
func (c *container) probe(ctx context.Context, p *process) {
	if c.spec.StartupProbe != nil {
		if !c.pass(ctx, p, c.spec.StartupProbe) {
			return
		}
		c.mu.Lock()
		c.begun = true
		c.ready = c.spec.ReadinessProbe == nil
		c.mu.Unlock()
		c.pod.report()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.spec.LivenessProbe != nil {
			c.watch(ctx, p, c.spec.LivenessProbe, func(well bool) {
				if !well {
					c.pod.runtime.cfg.Log.Warn("container fails its liveness probe", "pod", c.pod.name(), "container", c.spec.Name)
					go c.terminate(ctx, p, 10*time.Second)
				}
			})
		}
	}()
	if c.spec.ReadinessProbe != nil {
		c.watch(ctx, p, c.spec.ReadinessProbe, func(well bool) {
			c.mu.Lock()
			c.ready = well && c.process == p
			c.mu.Unlock()
			c.pod.report()
		})
	}
	<-done
}

// pass waits for a first success, and ends the process after too many failures.
func (c *container) pass(ctx context.Context, p *process, spec *corev1.Probe) bool {
	passed := false
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	c.watch(inner, p, spec, func(well bool) {
		passed = well
		if !well {
			go c.terminate(ctx, p, 10*time.Second)
		}
		cancel()
	})
	return passed
}

// watch calls changed whenever the outcome of a probe has changed by its thresholds.
func (c *container) watch(ctx context.Context, p *process, spec *corev1.Probe, changed func(well bool)) {
	wait := func(d time.Duration) bool {
		select {
		case <-time.After(d):
			return true
		case <-ctx.Done():
		case <-p.done:
		}
		return false
	}
	if !wait(time.Duration(spec.InitialDelaySeconds) * time.Second) {
		return
	}
	period := time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
	if spec.PeriodSeconds == 0 {
		period = 10 * time.Second
	}
	successes, failures := int32(0), int32(0)
	known, well := false, false
	for {
		err := c.ask(ctx, p, spec)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
		}
		switch {
		case err == nil && successes >= max(spec.SuccessThreshold, 1) && (!known || !well):
			known, well = true, true
			changed(true)
		case err != nil && failures >= threshold(spec) && (!known || well):
			known, well = true, false
			changed(false)
		}
		next := period
		if !known {
			next = min(period, time.Second) // until there is a first outcome, nobody likes to wait
		}
		if !wait(next) {
			return
		}
	}
}

func threshold(spec *corev1.Probe) int32 {
	if spec.FailureThreshold == 0 {
		return 3
	}
	return spec.FailureThreshold
}

// ask makes one attempt.
func (c *container) ask(ctx context.Context, p *process, spec *corev1.Probe) error {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case spec.HTTPGet != nil:
		return c.askHTTP(ctx, spec.HTTPGet)
	case spec.TCPSocket != nil:
		conn, err := c.dialFromNode(ctx, spec.TCPSocket.Host, spec.TCPSocket.Port)
		if err == nil {
			conn.Close()
		}
		return err
	case spec.Exec != nil:
		code, err := c.pod.runtime.execIn(ctx, c, p, spec.Exec.Command, Streams{Stdout: io.Discard, Stderr: io.Discard})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d", code)
		}
		return err
	}
	return errors.New("this kind of probe does not exist in the sandbox: use httpGet, tcpSocket or exec")
}

// dialFromNode connects as a kubelet does: by a socket of the node.
func (c *container) dialFromNode(ctx context.Context, host string, port intstr.IntOrString) (net.Conn, error) {
	if host == "" {
		c.pod.mu.Lock()
		if len(c.pod.ips) > 0 {
			host = c.pod.ips[0].String()
		}
		c.pod.mu.Unlock()
	}
	number := port.IntValue()
	for _, p := range c.spec.Ports {
		if port.Type == intstr.String && p.Name == port.StrVal {
			number = int(p.ContainerPort)
		}
	}
	var conn net.Conn
	err := ns.Set{Net: c.pod.node.Net}.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(number)))
		return err
	})
	return conn, err
}

func (c *container) askHTTP(ctx context.Context, get *corev1.HTTPGetAction) error {
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as kubelets do
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return c.dialFromNode(ctx, get.Host, get.Port)
			},
		},
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	path := "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://pod"+path, nil)
	if err != nil {
		return err
	}
	request.Host = net.JoinHostPort(get.Host, get.Port.String())
	for _, h := range get.HTTPHeaders {
		if strings.EqualFold(h.Name, "host") {
			request.Host = h.Value
		}
		request.Header.Add(h.Name, h.Value)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}
