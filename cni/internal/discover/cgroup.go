package discover

import "strings"

// PodUID reads a process's /proc/PID/cgroup and returns the UID of the pod that it belongs to, "" if to none.
//
// The path below every kubelet's pods has one element that names the pod, whatever the driver and the version of cgroups:
//
//	/kubepods/burstable/pod7e0dd8a5-…/3f8c…                                              cgroupfs
//	/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7e0dd8a5_….slice/…    systemd
//	/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod7e0dd8a5_….slice/…         systemd, kind
//
// Under cgroup v1 there is a line per controller; any of them will do.
func PodUID(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		below := false
		for element := range strings.SplitSeq(parts[2], "/") {
			if below {
				if uid := uidOf(element); uid != "" {
					return uid
				}
			}
			below = below || strings.Contains(element, "kubepods")
		}
	}
	return ""
}

// uidOf reads one element of a path: "pod7e0dd8a5-…", or "kubepods-burstable-pod7e0dd8a5_….slice".
func uidOf(element string) string {
	element = strings.TrimSuffix(element, ".slice")
	at := strings.LastIndex(element, "pod")
	if at < 0 || at > 0 && element[at-1] != '-' {
		return ""
	}
	uid := strings.ReplaceAll(element[at+len("pod"):], "_", "-")
	if !isUID(uid) {
		return ""
	}
	return uid
}

// isUID accepts UUIDs, and the bare hexadecimal hashes of static pods.
func isUID(s string) bool {
	if len(s) < 32 || len(s) > 36 {
		return false
	}
	for _, c := range s {
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if !hex && c != '-' {
			return false
		}
	}
	return true
}
