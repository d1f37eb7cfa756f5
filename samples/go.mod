module github.com/isthmus-mesh/isthmus/samples

go 1.26.0
