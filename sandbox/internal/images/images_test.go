package images_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/images"
)

func TestResolve(t *testing.T) {
	table := images.New("/bin/dir")
	for image, want := range map[string]struct{ argv, env string }{
		"docker.io/istio/examples-bookinfo-reviews-v3:1.20.3":               {"/bin/dir/reviews", "SERVICE_VERSION=v3"},
		"docker.io/isthmus/examples-bookinfo-details-v1:dev":                {"/bin/dir/details", "SERVICE_VERSION=v1"},
		"registry:5000/istio/examples-bookinfo-ratings-v-delayed@sha256:00": {"/bin/dir/ratings", "SERVICE_VERSION=v-delayed"},
		"examples-bookinfo-productpage-v1":                                  {"/bin/dir/productpage", ""},
		"docker.io/kennethreitz/httpbin":                                    {"/bin/dir/httpbin 80", ""},
		"kennethreitz/httpbin:latest":                                       {"/bin/dir/httpbin 80", ""},
		"docker.io/isthmus/httpbin:dev":                                     {"/bin/dir/httpbin", ""},
		"docker.io/mccutchen/go-httpbin":                                    {"/bin/dir/httpbin", ""},
		"curlimages/curl:8.16.0":                                            {"sleep infinity", ""},
		"docker.io/isthmus/ztunnel:dev":                                     {"/bin/dir/ztunnel", ""},
	} {
		p, err := table.Resolve(image)
		if err != nil {
			t.Errorf("%s: %v", image, err)
			continue
		}
		if got := strings.Join(images.Command(p, &corev1.Container{}), " "); got != want.argv || strings.Join(p.Env, ",") != want.env {
			t.Errorf("%s: %q with %v, want %q with %q", image, got, p.Env, want.argv, want.env)
		}
	}
	for _, image := range []string{"nginx", "quay.io/someone/reviews-v1", "", "examples-bookinfo-reviews"} {
		if _, err := table.Resolve(image); err == nil || !strings.Contains(err.Error(), "not known") {
			t.Errorf("%q: %v", image, err)
		}
	}
}

func TestCommand(t *testing.T) {
	p := images.Program{Entrypoint: []string{"e"}, Cmd: []string{"c"}}
	for _, tt := range []struct {
		command, args, want []string
	}{
		{nil, nil, []string{"e", "c"}},
		{nil, []string{"a"}, []string{"e", "a"}},
		{[]string{"x"}, nil, []string{"x"}},
		{[]string{"x"}, []string{"a"}, []string{"x", "a"}},
	} {
		if got := images.Command(p, &corev1.Container{Command: tt.command, Args: tt.args}); !slices.Equal(got, tt.want) {
			t.Errorf("command %v, args %v: %v, want %v", tt.command, tt.args, got, tt.want)
		}
	}
}
