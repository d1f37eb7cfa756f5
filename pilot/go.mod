module github.com/isthmus-mesh/isthmus/pilot

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg
replace github.com/isthmus-mesh/isthmus/pkg/kube => ../pkg/kube
