package plan

import (
	"fmt"
	"slices"
	"strings"
)

// AnnotationReroute names interfaces in the pod's namespace behind which others live, such as virtual machines, comma-separated:
// what comes in by one of them is the pod's own traffic on its way out.
const AnnotationReroute = "istio.io/reroute-virtual-interfaces"

const (
	// maxName is the length of an interface's name, in bytes (IFNAMSIZ without the zero at its end).
	maxName = 15
	// maxInterfaces bounds the rules of one pod.
	maxInterfaces = 32
)

// Interfaces reads a value of AnnotationReroute: the names that count, sorted, each once, and one sentence per name that does not.
func Interfaces(value string) (names, problems []string) {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" || slices.Contains(names, name) {
			continue
		}
		switch problem := wrongName(name); {
		case problem != "":
			problems = append(problems, fmt.Sprintf("%.40q: %s", name, problem))
		case len(names) == maxInterfaces:
			problems = append(problems, fmt.Sprintf("%q: only the first %d interfaces count", name, maxInterfaces))
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, problems
}

// wrongName tells why a name is none of an interface that may be rerouted; "" if it may be. It is stricter than the kernel: a name
// becomes a word of iptables' input.
func wrongName(name string) string {
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}
	switch {
	case strings.HasSuffix(name, "+") || strings.HasSuffix(name, "*"):
		return "wildcards are not known: name each interface"
	case len(name) > maxName:
		return fmt.Sprintf("a name has at most %d bytes", maxName)
	case strings.ContainsFunc(name, strange) || name[0] == '-' || name[0] == '.':
		return "no name of an interface"
	case name == "lo" || name == "eth0":
		return "the pod's own interface: what others send to the pod would count as sent by it"
	}
	return ""
}

// Rerouted are the interfaces of p.Reroute.
func (p Pod) Rerouted() []string {
	if p.Reroute == "" {
		return nil
	}
	return strings.Split(p.Reroute, ",")
}
