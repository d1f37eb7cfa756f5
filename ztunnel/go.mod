module github.com/isthmus-mesh/isthmus/ztunnel

go 1.26.0

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg
