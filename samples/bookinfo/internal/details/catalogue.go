package details

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/bookinfo/internal/peer"
)

// catalogueISBN is an edition of The Comedy of Errors that names Shakespeare
// as its only author.
const catalogueISBN = "0486424618"

const catalogueTimeout = 5 * time.Second

// catalogue looks the book up in the Google Books API.
type catalogue struct {
	url    string
	client *peer.Client
}

// newCatalogue speaks plain HTTP where plaintext is set: then the mesh is
// expected to originate TLS.
func newCatalogue(plaintext bool, t http.RoundTripper) *catalogue {
	scheme := "https"
	if plaintext {
		scheme = "http"
	}
	return &catalogue{
		url:    scheme + "://www.googleapis.com/books/v1/volumes?q=isbn:" + catalogueISBN,
		client: peer.NewClient(t),
	}
}

// volumes is the part of the API's answer that is used here.
type volumes struct {
	Items []struct {
		VolumeInfo struct {
			Authors             []string `json:"authors"`
			PublishedDate       string   `json:"publishedDate"`
			PrintType           string   `json:"printType"`
			PageCount           int      `json:"pageCount"`
			Publisher           string   `json:"publisher"`
			Language            string   `json:"language"`
			IndustryIdentifiers []struct {
				Type       string `json:"type"`
				Identifier string `json:"identifier"`
			} `json:"industryIdentifiers"`
		} `json:"volumeInfo"`
	} `json:"items"`
}

func (c *catalogue) fetch(ctx context.Context, id int, header http.Header) (book, error) {
	// What identifies the person inside the mesh is none of an outsider's business.
	for _, name := range []string{"Authorization", "Cookie", "Jwt"} {
		header.Del(name)
	}
	status, body, err := c.client.Get(ctx, c.url, header, catalogueTimeout)
	if err != nil {
		return book{}, fmt.Errorf("external book service: %w", err)
	}
	if status != http.StatusOK {
		return book{}, fmt.Errorf("external book service %s answered %d", c.url, status)
	}
	return parseVolumes(id, body)
}

// parseVolumes turns the first volume of the catalogue's answer into a book.
func parseVolumes(id int, body []byte) (book, error) {
	var v volumes
	if err := json.Unmarshal(body, &v); err != nil {
		return book{}, fmt.Errorf("parse answer of the external book service: %w", err)
	}
	if len(v.Items) == 0 || len(v.Items[0].VolumeInfo.Authors) == 0 {
		return book{}, fmt.Errorf("external book service knows no book with ISBN %s", catalogueISBN)
	}
	info := v.Items[0].VolumeInfo
	b := book{
		ID: id, Author: info.Authors[0], Year: info.PublishedDate, Type: "unknown",
		Pages: info.PageCount, Publisher: info.Publisher, Language: "unknown",
	}
	if info.PrintType == "BOOK" {
		b.Type = "paperback"
	}
	if info.Language == "en" {
		b.Language = "English"
	}
	for _, i := range info.IndustryIdentifiers {
		switch i.Type {
		case "ISBN_10":
			b.ISBN10 = i.Identifier
		case "ISBN_13":
			b.ISBN13 = i.Identifier
		}
	}
	return b, nil
}
