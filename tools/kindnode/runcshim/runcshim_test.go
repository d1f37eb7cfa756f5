package runcshim

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// most is the bounding set of a machine where only CAP_SYS_RESOURCE is missing.
const most = 0x1fffeffffff

func TestEditBundle(t *testing.T) {
	const spec = `{"ociVersion":"1.0.2","process":{"args":["/sbin/init"],"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_FUTURE"],"effective":["CAP_SYS_RESOURCE"]},"oomScoreAdj":-500,"user":{"uid":0}},"root":{"path":"rootfs"}}`
	tests := []struct {
		name   string
		limits Limits
		want   string
	}{
		{
			"lacking",
			Limits{Bounding: most},
			`{"ociVersion":"1.0.2","process":{"args":["/sbin/init"],"capabilities":{"bounding":["CAP_CHOWN","CAP_FUTURE"],"effective":[]},"oomScoreAdj":0,"user":{"uid":0}},"root":{"path":"rootfs"}}`,
		},
		{"complete", Limits{Bounding: most | 1<<SysResource}, spec},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := EditBundle([]byte(spec), test.limits)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEditProcessKeepsHigherScore(t *testing.T) {
	got, err := EditProcess([]byte(`{"oomScoreAdj":300}`), Limits{Bounding: most, OOMScore: 100})
	if err != nil || string(got) != `{"oomScoreAdj":300}` {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := EditProcess([]byte(`{"capabilities":[]}`), Limits{}); err == nil {
		t.Error("nonsense is accepted")
	}
}

func TestParseArgs(t *testing.T) {
	tests := []struct {
		args []string
		want Target
	}{
		{[]string{"--root", "/r", "--log", "/l", "create", "--bundle", "/b", "--pid-file", "/p", "id"}, Target{Bundle: "/b"}},
		{[]string{"run", "-b", "/b", "id"}, Target{Bundle: "/b"}},
		{[]string{"--root", "/r", "exec", "--process", "/p", "--detach", "id"}, Target{Process: "/p"}},
		{[]string{"exec", "--process=/p", "id"}, Target{Process: "/p"}},
		{[]string{"--root", "/r", "delete", "--force", "id"}, Target{}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, ParseArgs(test.args)); diff != "" {
			t.Errorf("%v: %s", test.args, diff)
		}
	}
}

func TestParseBounding(t *testing.T) {
	got, err := ParseBounding("Name:\tx\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n")
	if err != nil || got != most {
		t.Errorf("got %x, %v", got, err)
	}
	if (Limits{Bounding: got}).Has(SysResource) {
		t.Error("CAP_SYS_RESOURCE is said to be there")
	}
	if _, err := ParseBounding("Name:\tx\n"); err == nil {
		t.Error("a status without the line is accepted")
	}
}
