module github.com/isthmus-mesh/isthmus/cni

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg

replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube

require (
	github.com/google/nftables v0.3.0
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.49.0
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/mdlayher/netlink v1.7.3-0.20250113171957-fbb4dce95f42 // indirect
	github.com/mdlayher/socket v0.5.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sync v0.6.0 // indirect
)
