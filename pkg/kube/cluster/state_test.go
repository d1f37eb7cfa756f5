package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
)

func service(namespace, name, version, v string) put {
	o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version, Labels: map[string]string{"v": v}}}
	o.SetGroupVersionKind(kube.ServiceGVK())
	return put{name: kube.NameOf(o), object: o}
}

func all(string) bool { return true }

// told is what a sink is told, as text.
func told(s *state) []string {
	upserts, deletes, added := s.take()
	var out []string
	for i, o := range upserts {
		kind := "update"
		if i < added {
			kind = "add"
		}
		out = append(out, fmt.Sprintf("%s %s v%s", kind, o.GetName(), o.GetLabels()["v"]))
	}
	for _, d := range deletes {
		out = append(out, "delete "+d.Name)
	}
	slices.Sort(out)
	return out
}

func TestTheSinkIsToldDifferences(t *testing.T) {
	name := func(n string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: n} }
	for _, c := range []struct {
		what string
		do   func(s *state)
		want string
	}{
		{"nothing new", func(s *state) { s.put(service("ns", "a", "1", "1"), all) }, ""},
		{"another version of the same", func(s *state) { s.put(service("ns", "a", "2", "1"), all) }, ""},
		{"a change", func(s *state) { s.put(service("ns", "a", "2", "2"), all) }, "update a v2"},
		{"two changes", func(s *state) { s.put(service("ns", "a", "2", "2"), all); s.put(service("ns", "a", "3", "3"), all) }, "update a v3"},
		{"a new one", func(s *state) { s.put(service("ns", "c", "2", "2"), all) }, "add c v2"},
		{"a new one that went", func(s *state) { s.put(service("ns", "c", "2", "2"), all); s.remove(name("c")) }, ""},
		{"one that went", func(s *state) { s.remove(name("a")) }, "delete a"},
		{"one that went and came", func(s *state) { s.remove(name("a")); s.put(service("ns", "a", "2", "2"), all) }, "update a v2"},
		{"one that went, came and went", func(s *state) {
			s.remove(name("a"))
			s.put(service("ns", "a", "2", "2"), all)
			s.remove(name("a"))
		}, "delete a"},
		{"one that nobody knows went", func(s *state) { s.remove(name("x")) }, ""},
		{"a list", func(s *state) {
			s.replace([]put{service("ns", "b", "2", "2"), service("ns", "c", "2", "1")}, all)
		}, "add c v1,delete a,update b v2"},
		{"the same list", func(s *state) {
			s.replace([]put{service("ns", "a", "1", "1"), service("ns", "b", "1", "1")}, all)
		}, ""},
		{"an invalid one", func(s *state) { s.put(put{name: name("a"), errs: []kube.ObjectError{{Name: "a"}}}, all) }, ""},
		{"a list with an invalid one", func(s *state) {
			s.replace([]put{{name: name("a"), errs: []kube.ObjectError{{Name: "a"}}}}, all)
		}, "delete b"},
		{"an unselected namespace", func(s *state) { s.reselect(func(string) bool { return false }) }, "delete a,delete b"},
		{"one in an unselected namespace", func(s *state) {
			s.put(service("other", "c", "2", "2"), func(ns string) bool { return ns == "ns" })
		}, ""},
		{"unselected and selected", func(s *state) { s.reselect(func(string) bool { return false }); s.reselect(all) }, "update a v1,update b v1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newState()
			s.replace([]put{service("ns", "a", "1", "1"), service("ns", "b", "1", "1")}, all)
			if got := told(s); len(got) != 2 {
				t.Fatal(got)
			}
			c.do(s)
			if got := strings.Join(told(s), ","); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

// TestASinkEndsUpWithWhatThereIs does random things in random batches.
func TestASinkEndsUpWithWhatThereIs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		s := newState()
		api, sink, selected := map[types.NamespacedName]string{}, map[types.NamespacedName]string{}, map[string]bool{"x": true, "y": true}
		choose := func(ns string) bool { return selected[ns] }
		version := 0
		for range 60 {
			name := types.NamespacedName{Namespace: []string{"x", "y"}[random.IntN(2)], Name: []string{"a", "b", "c"}[random.IntN(3)]}
			version++
			switch random.IntN(6) {
			case 0, 1:
				api[name] = fmt.Sprint(random.IntN(2))
				s.put(service(name.Namespace, name.Name, fmt.Sprint(version), api[name]), choose)
			case 2:
				delete(api, name)
				s.remove(name)
			case 3:
				var list []put
				for n, v := range api {
					list = append(list, service(n.Namespace, n.Name, fmt.Sprint(version), v))
				}
				s.replace(list, choose)
			case 4:
				selected[name.Namespace] = !selected[name.Namespace]
				s.reselect(choose)
			case 5:
				upserts, deletes, added := s.take()
				for i, o := range upserts {
					if _, has := sink[kube.NameOf(o)]; has == (i < added) {
						t.Fatalf("%s is told as new or old wrongly", kube.NameOf(o))
					}
					sink[kube.NameOf(o)] = o.GetLabels()["v"]
				}
				for _, d := range deletes {
					if _, has := sink[d]; !has {
						t.Fatalf("delete of unknown %s", d)
					}
					delete(sink, d)
				}
				want := map[types.NamespacedName]string{}
				for n, v := range api {
					if selected[n.Namespace] {
						want[n] = v
					}
				}
				if fmt.Sprint(sink) != fmt.Sprint(want) {
					t.Fatalf("the sink has %v, want %v", sink, want)
				}
			}
		}
	}
}
