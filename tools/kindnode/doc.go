// Package kindnode and its subfolders make a kind cluster where no image registry can be reached: Kubernetes, etcd,
// CoreDNS and crictl are built from their pinned Go modules (modules/), the operating system of a node comes from
// Debian's packages (rootfs), the images of the control plane are assembled here (archive, nodeimage), and kind's own
// library, unmodified, creates the cluster (cluster) on a private docker daemon (daemon, runcshim) when the machine
// has none. Everything built is kept by content (cache). The command is tools/cmd/kindnode.
package kindnode
