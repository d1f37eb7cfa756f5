// Package runcshim adapts container specifications to a machine whose processes lack some capabilities.
//
// docker gives a privileged container every capability there is. Where the bounding set of the daemon itself lacks
// one (typically CAP_SYS_RESOURCE in a sandboxed virtual machine), runc fails with "unable to apply caps", and so
// would every kind node, which is always privileged. The wrapper takes away what cannot be given, and no more.
package runcshim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits is what this machine can give to a container.
type Limits struct {
	Bounding uint64 // bounding set of this process, as in /proc/self/status
	OOMScore int    // own oom_score_adj: lowering it takes CAP_SYS_RESOURCE
}

// SysResource is the number of CAP_SYS_RESOURCE.
const SysResource = 24

// Has reports whether capability number n can be given.
func (l Limits) Has(n int) bool { return l.Bounding&(1<<n) != 0 }

// ParseBounding reads the bounding set out of the text of /proc/self/status.
func ParseBounding(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		}
	}
	return 0, fmt.Errorf("no CapBnd line in the status of the process")
}

// EditBundle adapts the config.json of a bundle.
func EditBundle(spec []byte, l Limits) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(spec, &doc); err != nil {
		return nil, fmt.Errorf("parse bundle: %w", err)
	}
	process, ok := doc["process"]
	if !ok {
		return spec, nil
	}
	edited, err := EditProcess(process, l)
	if err != nil {
		return nil, err
	}
	doc["process"] = edited
	return json.Marshal(doc)
}

// EditProcess adapts a process object, as `runc exec --process` takes it.
func EditProcess(process []byte, l Limits) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(process, &doc); err != nil {
		return nil, fmt.Errorf("parse process: %w", err)
	}
	if raw, ok := doc["capabilities"]; ok {
		edited, err := editCapabilities(raw, l)
		if err != nil {
			return nil, err
		}
		doc["capabilities"] = edited
	}
	if raw, ok := doc["oomScoreAdj"]; ok && !l.Has(SysResource) {
		var score int
		if err := json.Unmarshal(raw, &score); err != nil {
			return nil, fmt.Errorf("parse oomScoreAdj: %w", err)
		}
		doc["oomScoreAdj"] = json.RawMessage(strconv.Itoa(max(score, l.OOMScore)))
	}
	return json.Marshal(doc)
}

func editCapabilities(raw []byte, l Limits) (json.RawMessage, error) {
	var sets map[string][]string
	if err := json.Unmarshal(raw, &sets); err != nil {
		return nil, fmt.Errorf("parse capabilities: %w", err)
	}
	for name, set := range sets {
		sets[name] = slices.DeleteFunc(set, func(c string) bool {
			n := slices.Index(capabilityNames(), c)
			return n >= 0 && !l.Has(n)
		})
	}
	return json.Marshal(sets)
}

// capabilityNames is in the order of the kernel's numbers (capability.h).
func capabilityNames() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
		"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
		"CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
		"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
		"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// Target says which file of a runc command line holds what the new process may do.
type Target struct {
	Bundle  string // folder with config.json
	Process string // file with a process object
}

// ParseArgs finds the target in the arguments that a runtime is called with; a command that starts nothing has none.
func ParseArgs(args []string) Target {
	value := func(names ...string) string {
		for i, a := range args {
			for _, n := range names {
				if a == n && i+1 < len(args) {
					return args[i+1]
				}
				if v, ok := strings.CutPrefix(a, n+"="); ok {
					return v
				}
			}
		}
		return ""
	}
	switch {
	case slices.Contains(args, "create"), slices.Contains(args, "run"):
		return Target{Bundle: value("--bundle", "-b")}
	case slices.Contains(args, "exec"):
		return Target{Process: value("--process", "-p")}
	}
	return Target{}
}
