//go:build e2e

package suites

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/isthmus-mesh/isthmus/tests/e2e/lab"
)

// conversations are open while node proxies are replaced.
const conversations = 6

// talkScript says a line ten times a second on one connection, until it is told to end, and keeps what comes back in one file and the
// number of the last line in another.
const talkScript = `( i=0; while [ ! -e /tmp/hush ]; do i=$((i+1)); echo "line $i" || break; echo $i > /tmp/said-%[1]d; sleep 0.1; done; sleep 2 ) |
nc %[2]s 9090 > /tmp/heard-%[1]d 2>&1; echo "ended $?" >> /tmp/heard-%[1]d`

var _ = Describe("Node proxies with hand-over", Serial, Ordered, SpecPriority(-5), func() {
	const ns = "e2e-handover"
	BeforeAll(func(ctx SpecContext) {
		namespace(ctx, ns, ambient())
		deploy(ctx, ns, []string{"echo-v1", "client"}, echoManifest("v1", 3), clientManifest("client"))
		apply(ctx, ns, "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n")
		enrolled(ctx, ns, "app=echo")
		enrolled(ctx, ns, "app=client")
		answers(ctx, ns, "client", "200", "http://echo/")
	})

	It("are replaced without dropping an open connection (TestZtunnelRestart)", func(ctx SpecContext) {
		talks := startTalks(ctx, ns, "client", "echo")
		stop := load(ctx, ns, "client", "http://echo/")
		since := time.Now()
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Ztunnel()) })
		stop()
		talks.end(ctx)

		By("what the new ones say")
		taken, refused := handedOver(ctx, since)
		Expect(refused).To(BeZero())
		// Each conversation has two tunnel connections or sockets at least, one at either end; several may share a tunnel.
		Expect(taken).To(BeNumerically(">=", 2))
	})

	It("are replaced once more, under connections that were handed over before", func(ctx SpecContext) {
		talks := startTalks(ctx, ns, "client", "echo")
		for range 2 {
			within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Ztunnel()) })
			talks.goOn(ctx)
		}
		talks.end(ctx)
	})

	It("apply a policy to a connection that was handed over", func(ctx SpecContext) {
		talks := startTalks(ctx, ns, "client", "echo")
		within(ctx, func(ctx context.Context) error { return cluster.Restart(ctx, lab.Ztunnel()) })
		talks.goOn(ctx)
		apply(ctx, ns, fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/%s/sa/client]}}]}]}
`, ns))
		Eventually(ctx, func() int { return strings.Count(talks.all(ctx), "ended") }).WithTimeout(patience).Should(Equal(conversations))
	})
})

// talks are conversations of one pod.
type talks struct{ ns, pod string }

// startTalks opens the conversations and waits until all of them have an answer.
func startTalks(ctx context.Context, ns, client, to string) talks {
	GinkgoHelper()
	pod, err := cluster.Pod(ctx, ns, "app="+client)
	Expect(err).NotTo(HaveOccurred())
	t := talks{ns, pod.Name}
	t.sh(ctx, "rm -f /tmp/hush /tmp/said-* /tmp/heard-*")
	for n := range conversations {
		t.sh(ctx, "("+fmt.Sprintf(talkScript, n, to)+") >/dev/null 2>&1 &")
	}
	t.goOn(ctx)
	return t
}

func (t talks) sh(ctx context.Context, script string) string {
	GinkgoHelper()
	out, err := cluster.Exec(ctx, t.ns, t.pod, "sh", "-c", script)
	Expect(err).NotTo(HaveOccurred())
	return out
}

func (t talks) all(ctx context.Context) string { return t.sh(ctx, "cat /tmp/heard-*") }

// goOn waits until each conversation has gone on.
func (t talks) goOn(ctx context.Context) {
	GinkgoHelper()
	for n := range conversations {
		said := t.said(ctx, n)
		Eventually(ctx, func() (int, error) {
			last, _, err := t.heard(ctx, n)
			return last, err
		}).Should(BeNumerically(">", said), "conversation %d does not go on", n)
	}
}

// said is the number of the last line that was said; 0 for none.
func (t talks) said(ctx context.Context, n int) int {
	out, _ := strconv.Atoi(strings.TrimSpace(t.sh(ctx, fmt.Sprintf("cat /tmp/said-%d 2>/dev/null || true", n))))
	return out
}

// heard is the number of the last line that came back, and whether the conversation has ended. An error says what came back in the wrong
// order, twice, or not at all.
func (t talks) heard(ctx context.Context, n int) (last int, ended bool, err error) {
	for line := range strings.Lines(t.sh(ctx, fmt.Sprintf("cat /tmp/heard-%d 2>/dev/null || true", n))) {
		if !strings.HasSuffix(line, "\n") {
			break // half of it
		}
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "line "); ok {
			if line != fmt.Sprintf("line %d", last+1) {
				return last, ended, fmt.Errorf("conversation %d: %q after line %d", n, text, last)
			}
			last++
		}
		ended = ended || strings.HasPrefix(line, "ended")
	}
	return last, ended, nil
}

// end tells the conversations to end, and expects that all that was said came back, and nothing else.
func (t talks) end(ctx context.Context) {
	GinkgoHelper()
	t.goOn(ctx)
	t.sh(ctx, ": > /tmp/hush")
	total := 0
	for n := range conversations {
		Eventually(ctx, func() (bool, error) {
			_, ended, err := t.heard(ctx, n)
			return ended, err
		}).Should(BeTrue())
		last, _, err := t.heard(ctx, n)
		Expect(err).NotTo(HaveOccurred())
		Expect(last).To(Equal(t.said(ctx, n)), "conversation %d lost lines", n)
		total += last
	}
	GinkgoWriter.Printf("%d conversations, %d lines, none lost\n", conversations, total)
}

var handedOverLine = regexp.MustCompile(`an old instance has handed over.*connections=(\d+) refused=(\d+)`)

// handedOver counts what the node proxies have taken over since then.
func handedOver(ctx context.Context, since time.Time) (taken, refused int) {
	GinkgoHelper()
	text, err := cluster.Logs(ctx, lab.SystemNamespace, "app=ztunnel", 2000)
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(text) {
		stamp, _, _ := strings.Cut(line, "\t")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		m := handedOverLine.FindStringSubmatch(line)
		if m == nil || err != nil || at.Before(since) {
			continue
		}
		t, _ := strconv.Atoi(m[1])
		r, _ := strconv.Atoi(m[2])
		taken, refused = taken+t, refused+r
		GinkgoWriter.Print(line)
	}
	return taken, refused
}
