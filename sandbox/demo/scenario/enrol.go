package scenario

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// lateNamespace is enrolled and un-enrolled while its pods run.
const lateNamespace = "late"

// chat keeps one connection open and says something on it five times a second; each answer is a line of output.
const chat = `exec 3<>/dev/tcp/%s/9000 || exit 1
i=0
while :; do
  i=$((i+1)); echo "ping $i" >&3 || { echo "LOST write $i"; exit 1; }
  IFS= read -r -t 5 line <&3 || { echo "LOST read $i"; exit 1; }
  echo "$line"; sleep 0.2
done`

// conversation is an open connection that is spoken on.
type conversation struct {
	stop  func() string
	lines func() string
}

func (b *Bed) converse(ctx context.Context, where, host string) (*conversation, error) {
	stop, lines := b.background(ctx, where, "bash", "-c", fmt.Sprintf(chat, host))
	c := &conversation{stop, lines}
	if err := b.eventually(ctx, func() bool { return c.answers() >= 2 }); err != nil {
		return nil, expected("an open connection from "+where+" to "+host, "%q", stop())
	}
	return c, nil
}

func (c *conversation) answers() int {
	return len(regexp.MustCompile(`(?m)ping \d+$`).FindAllString(c.lines(), -1))
}

// alive checks that the connection still carries answers.
func (b *Bed) alive(ctx context.Context, c *conversation) error {
	before := c.answers()
	err := b.eventually(ctx, func() bool { return c.answers() >= before+3 || strings.Contains(c.lines(), "LOST") })
	if err != nil || strings.Contains(c.lines(), "LOST") {
		text := c.lines()
		return expected("the open connection to go on", "…%q", text[max(0, len(text)-80):])
	}
	return nil
}

// Enrol takes running pods into the mesh and out again, with connections open.
func (b *Bed) Enrol(ctx context.Context) {
	b.Report.Section("Enrol and un-enrol running pods")
	const client, echo = lateNamespace + "/deploy/curl", "tcp-echo." + lateNamespace + ".svc.cluster.local"
	var before, during *conversation
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		var err error
		since := time.Now()
		if before, err = b.converse(ctx, client, echo); err != nil {
			return "", err
		}
		if err := b.setMode(ctx, "ambient", "enabled"); err != nil {
			return "", err
		}
		took := time.Since(since)
		if err := b.alive(ctx, before); err != nil {
			return "", fmt.Errorf("after enrolment: %w", err)
		}
		return fmt.Sprintf("labelled the namespace of running pods: enrolled after %d ms, and a connection opened before goes on", took.Milliseconds()), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		since := time.Now()
		var err error
		if during, err = b.converse(ctx, client, echo); err != nil {
			return "", err
		}
		short, err := b.exec(ctx, client, "bash", "-c", "exec 3<>/dev/tcp/"+echo+"/9000; echo new >&3; read -t 5 line <&3; echo $line")
		if err != nil || !strings.Contains(short.stdout, "new") {
			return "", expected("a new connection to be answered", "%s %v", short, err)
		}
		if _, err := b.findLog(ctx, since, `direction="inbound"`, `src.identity="spiffe://cluster.local/ns/late/sa/curl"`, `dst.workload="tcp-echo`); err != nil {
			return "", err
		}
		return "a new connection of the same pods goes through the tunnel, with the client's identity", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if before == nil || during == nil {
			return "", expected("open connections from the steps before", "none")
		}
		if err := b.setMode(ctx, "", ""); err != nil {
			return "", err
		}
		for name, c := range map[string]*conversation{"before enrolment": before, "through the tunnel": during} {
			if err := b.alive(ctx, c); err != nil {
				return "", fmt.Errorf("after un-enrolment, the connection opened %s: %w", name, err)
			}
		}
		return "un-enrolled: both the connection from before and the one through the tunnel go on", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		since := time.Now()
		short, err := b.exec(ctx, client, "bash", "-c", "exec 3<>/dev/tcp/"+echo+"/9000; echo plain >&3; read -t 5 line <&3; echo $line")
		if err != nil || !strings.Contains(short.stdout, "plain") {
			return "", expected("a new connection to be answered", "%s %v", short, err)
		}
		log, err := b.proxyLog(ctx, since)
		if err != nil {
			return "", err
		}
		if line := match(log, `connection complete`, `src.namespace="late"`, `duration="\d?\d?\dms"`); line != "" {
			return "", expected("no proxy in the way of a new connection", "%s", line)
		}
		return "a new connection after that goes directly, past the proxies", nil
	})
	for _, c := range []*conversation{before, during} {
		if c != nil {
			c.stop()
		}
	}
}

// setMode labels the namespace and waits until its pods say how they are redirected.
func (b *Bed) setMode(ctx context.Context, mode, redirection string) error {
	value := &mode
	if mode == "" {
		value = nil
	}
	if err := b.Sandbox.Label(ctx, "Namespace", "", lateNamespace, map[string]*string{"istio.io/dataplane-mode": value}); err != nil {
		return err
	}
	var seen []string
	err := b.eventually(ctx, func() bool {
		status, err := b.Sandbox.Status(ctx)
		if err != nil {
			return false
		}
		seen = nil
		all := true
		for _, p := range status.Pods {
			if p.Namespace == lateNamespace {
				seen = append(seen, p.Name+"="+p.Redirection)
				all = all && p.Redirection == redirection
			}
		}
		return all && len(seen) > 0
	})
	if err != nil {
		return expected(fmt.Sprintf("redirection %q on the pods of namespace %s", redirection, lateNamespace), "%v", seen)
	}
	return nil
}
