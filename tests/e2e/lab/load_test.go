package lab

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestALoadTellsHowFarARequestCame runs the script of pods here.
func TestALoadTellsHowFarARequestCame(t *testing.T) {
	stop := filepath.Join(t.TempDir(), "stop")
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch requests++; requests {
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 5:
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	begin := time.Now()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", ": > "+stop+"; "+fmt.Sprintf(loadScript, stop, server.URL)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := outcomeOf(string(out))
	if o.Requests != 25 || o.Failed != 2 || len(o.Failures) != 2 || len(o.Lost) != 2 {
		t.Fatalf("%+v of\n%s", o, out)
	}
	for n, wants := range [][]string{{": 503 from 127.0.0.1:", "resolved=0.0", "answered=0.0"}, {"curl: (52) Empty reply", "000 from 127.0.0.1:", "connected=0.0"}} {
		for _, want := range wants {
			if !strings.Contains(o.Failures[n], want) {
				t.Errorf("%q lacks %q", o.Failures[n], want)
			}
		}
		if at := o.Lost[n].Begin; at.Before(begin.Truncate(time.Second)) || at.After(time.Now()) || o.Lost[n].Took <= 0 {
			t.Errorf("%+v of %q", o.Lost[n], o.Failures[n])
		}
	}
}

func TestAFailureShowsWhatWasLoggedAroundIt(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	j := &Journal{last: map[string]time.Time{}}
	for _, l := range []line{
		{at.Add(-3 * time.Second), "ztunnel-a/istio-proxy", "long before"},
		{at.Add(6 * time.Second), "waypoint-1/istio-proxy", "at its end"},
		{at.Add(-time.Second), "ztunnel-a/istio-proxy", "shortly before"},
		{at.Add(8 * time.Second), "ztunnel-a/istio-proxy", "long after"},
	} {
		j.add(l)
	}
	o := outcomeOf("ok\nfailed at=1000000: curl: (28) Resolving timed out after 5000 milliseconds 000 from : resolved=0.000000 took=5.000000\nfailed: who knows\nok\n")
	if o.Requests != 4 || o.Failed != 2 || len(o.Lost) != 1 || o.Lost[0].Took != 5*time.Second {
		t.Fatalf("%+v", o)
	}
	want := o.Failures[0] + "\n13:46:39.000 ztunnel-a/istio-proxy: shortly before\n13:46:46.000 waypoint-1/istio-proxy: at its end\n"
	if got := o.Around(j); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
