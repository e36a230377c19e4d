// The shop as Go's net/http and pgx would have it: one process, one database, one careful transaction for an order.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	productColumns = `id::text, name, slug, sku, variant, description, category, currency, price_micros, stock, star, image_uri,
		revision, create_time, update_time`
	orderColumns = `id::text, number, status, items, currency, total_micros::bigint, customer_name, customer_email,
		customer_phone, shipping_address, payment_method, notes, version, create_time, update_time`
	searched = `lower(name || E'\n' || description || E'\n' || category || E'\n' || sku)`
)

type money struct {
	CurrencyCode string `json:"currencyCode"`
	Units        string `json:"units"`
	Nanos        int64  `json:"nanos"`
}

func moneyOf(currency string, micros int64) money {
	return money{currency, strconv.FormatInt(micros/1_000_000, 10), micros % 1_000_000 * 1_000}
}

type product struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Slug        string    `json:"slug"`
	SKU         string    `json:"sku"`
	Variant     string    `json:"variant"`
	Description string    `json:"description"`
	Category    string    `json:"category"`
	Price       money     `json:"price"`
	Stock       string    `json:"stock"`
	Star        float64   `json:"star"`
	ImageURI    string    `json:"imageUri"`
	ETag        string    `json:"etag"`
	CreateTime  time.Time `json:"createTime"`
	UpdateTime  time.Time `json:"updateTime"`
}

type storedItem struct {
	ProductID   string `json:"product_id"`
	Quantity    int64  `json:"quantity"`
	Name        string `json:"name"`
	PriceMicros int64  `json:"price_micros"`
}

type item struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
	Name      string `json:"name"`
	UnitPrice money  `json:"unitPrice"`
}

type customer struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	Phone string `json:"phone"`
}

type order struct {
	ID              string    `json:"id"`
	Number          string    `json:"number"`
	Status          string    `json:"status"`
	Items           []item    `json:"items"`
	Total           money     `json:"total"`
	Customer        customer  `json:"customer"`
	ShippingAddress string    `json:"shippingAddress"`
	PaymentMethod   string    `json:"paymentMethod"`
	Notes           string    `json:"notes"`
	ETag            string    `json:"etag"`
	CreateTime      time.Time `json:"createTime"`
	UpdateTime      time.Time `json:"updateTime"`
}

type newOrder struct {
	Items []struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	} `json:"items"`
	Customer        customer `json:"customer"`
	ShippingAddress string   `json:"shippingAddress"`
	PaymentMethod   string   `json:"paymentMethod"`
	Notes           string   `json:"notes"`
}

type server struct{ pool *pgxpool.Pool }

var errRefused = errors.New("refused")

func scanProduct(row pgx.Row) (product, error) {
	var p product
	var currency string
	var micros, stock, revision int64
	err := row.Scan(&p.ID, &p.Name, &p.Slug, &p.SKU, &p.Variant, &p.Description, &p.Category, &currency, &micros, &stock,
		&p.Star, &p.ImageURI, &revision, &p.CreateTime, &p.UpdateTime)
	p.Price, p.Stock, p.ETag = moneyOf(currency, micros), strconv.FormatInt(stock, 10), strconv.FormatInt(revision, 10)
	return p, err
}

func scanOrder(row pgx.Row, before ...any) (order, []storedItem, error) {
	var o order
	var stored []storedItem
	var currency string
	var total, version int64
	err := row.Scan(append(before, &o.ID, &o.Number, &o.Status, &stored, &currency, &total, &o.Customer.Name,
		&o.Customer.Email, &o.Customer.Phone, &o.ShippingAddress, &o.PaymentMethod, &o.Notes, &version, &o.CreateTime,
		&o.UpdateTime)...)
	for _, each := range stored {
		o.Items = append(o.Items, item{each.ProductID, each.Quantity, each.Name, moneyOf(currency, each.PriceMicros)})
	}
	o.Total, o.ETag = moneyOf(currency, total), strconv.FormatInt(version, 10)
	return o, stored, err
}

func answer(w http.ResponseWriter, body any, err error) {
	w.Header().Set("content-type", "application/json")
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		w.WriteHeader(http.StatusNotFound)
		body = map[string]string{"message": "not found"}
	case errors.Is(err, errRefused):
		w.WriteHeader(http.StatusBadRequest)
		body = map[string]string{"message": err.Error()}
	case err != nil:
		log.Print(err)
		w.WriteHeader(http.StatusInternalServerError)
		body = map[string]string{"message": "internal error"}
	}
	_ = json.NewEncoder(w).Encode(body)
}

func (s server) getProduct(w http.ResponseWriter, r *http.Request) {
	p, err := scanProduct(s.pool.QueryRow(r.Context(),
		"SELECT "+productColumns+" FROM product WHERE id = $1", r.PathValue("id")))
	answer(w, p, err)
}

func pageSize(r *http.Request) int {
	if n, err := strconv.Atoi(r.URL.Query().Get("pageSize")); err == nil && n > 0 && n <= 100 {
		return n
	}
	return 20
}

// page adds the condition and the limit of one page, newest first, after the row that the token names by its time and id.
func page(r *http.Request, conditions []string, args []any) (string, []any, int) {
	if microseconds, last, found := strings.Cut(r.URL.Query().Get("pageToken"), "_"); found {
		if n, err := strconv.ParseInt(microseconds, 10, 64); err == nil {
			args = append(args, time.UnixMicro(n), last)
			conditions = append(conditions, fmt.Sprintf("(create_time, id) < ($%d, $%d)", len(args)-1, len(args)))
		}
	}
	where, size := "", pageSize(r)
	if len(conditions) > 0 {
		where = " WHERE " + strings.Join(conditions, " AND ")
	}
	args = append(args, size+1)
	return fmt.Sprintf("%s ORDER BY create_time DESC, t.id DESC LIMIT $%d", where, len(args)), args, size
}

// next is the token of the page after these rows; one more than asked for were read.
func next[T any](rows []T, size int, key func(T) (time.Time, string)) ([]T, string) {
	if len(rows) <= size {
		return rows, ""
	}
	created, id := key(rows[size-1])
	return rows[:size], fmt.Sprintf("%d_%s", created.UnixMicro(), id)
}

func (s server) listProducts(w http.ResponseWriter, r *http.Request) {
	var conditions []string
	var args []any
	if word := r.URL.Query().Get("search"); word != "" {
		args = append(args, "%"+strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(word)+"%")
		conditions = append(conditions, searched+" LIKE lower($1)")
	}
	if category := r.URL.Query().Get("category"); category != "" {
		args = append(args, category)
		conditions = append(conditions, fmt.Sprintf("category = $%d", len(args)))
	}
	rest, args, size := page(r, conditions, args)
	rows, err := s.pool.Query(r.Context(), "SELECT "+productColumns+" FROM product AS t"+rest, args...)
	if err != nil {
		answer(w, nil, err)
		return
	}
	products, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (product, error) { return scanProduct(row) })
	products, token := next(products, size, func(p product) (time.Time, string) { return p.CreateTime, p.ID })
	answer(w, map[string]any{"products": products, "nextPageToken": token}, err)
}

func (s server) getOrder(w http.ResponseWriter, r *http.Request) {
	o, _, err := scanOrder(s.pool.QueryRow(r.Context(), "SELECT "+orderColumns+" FROM orders WHERE id = $1", r.PathValue("id")))
	answer(w, o, err)
}

func (s server) listOrders(w http.ResponseWriter, r *http.Request) {
	rest, args, size := page(r, nil, nil)
	rows, err := s.pool.Query(r.Context(), "SELECT "+orderColumns+" FROM orders AS t"+rest, args...)
	if err != nil {
		answer(w, nil, err)
		return
	}
	orders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (order, error) {
		o, _, err := scanOrder(row)
		return o, err
	})
	orders, token := next(orders, size, func(o order) (time.Time, string) { return o.CreateTime, o.ID })
	answer(w, map[string]any{"orders": orders, "nextPageToken": token}, err)
}

func (s server) createOrder(w http.ResponseWriter, r *http.Request) {
	var wanted newOrder
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 128<<10)).Decode(&wanted); err != nil {
		answer(w, nil, fmt.Errorf("%w: %w", errRefused, err))
		return
	}
	key, err := uuid.Parse(r.Header.Get("Idempotency-Key"))
	if err != nil || len(wanted.Items) == 0 || len(wanted.Items) > 50 || wanted.Customer.Name == "" ||
		!strings.Contains(wanted.Customer.Email, "@") || wanted.ShippingAddress == "" {
		answer(w, nil, errRefused)
		return
	}
	placed, err := s.place(r.Context(), key, wanted)
	var violated *pgconn.PgError
	if errors.As(err, &violated) && violated.Code == "23505" {
		// The same key came twice at once: the other one's order is there now, and nothing of this one is.
		placed, err = s.place(r.Context(), key, wanted)
	}
	answer(w, placed, err)
}

func (s server) place(ctx context.Context, key uuid.UUID, wanted newOrder) (placed order, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		placed, err = create(ctx, tx, key, wanted)
		return err
	})
	return placed, err
}

func create(ctx context.Context, tx pgx.Tx, key uuid.UUID, wanted newOrder) (order, error) {
	payload, _ := json.Marshal(wanted)
	fingerprint := sha256.Sum256(payload)
	var known []byte
	before, _, err := scanOrder(tx.QueryRow(ctx, "SELECT fingerprint, "+orderColumns+" FROM orders WHERE key = $1", key), &known)
	if err == nil {
		if string(known) != string(fingerprint[:]) {
			return order{}, errRefused
		}
		return before, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return order{}, err
	}
	sort.Slice(wanted.Items, func(i, j int) bool { return wanted.Items[i].ProductID < wanted.Items[j].ProductID })
	var items []storedItem
	var currency string
	var total int64
	for n, each := range wanted.Items {
		stored := storedItem{ProductID: each.ProductID, Quantity: each.Quantity}
		before := currency
		err := tx.QueryRow(ctx, `UPDATE product SET stock = stock - $2 WHERE id = $1 AND stock >= $2
			RETURNING name, currency, price_micros`, each.ProductID, each.Quantity).
			Scan(&stored.Name, &currency, &stored.PriceMicros)
		if errors.Is(err, pgx.ErrNoRows) {
			return order{}, errRefused
		}
		if err != nil {
			return order{}, err
		}
		if n > 0 && currency != before {
			return order{}, errRefused
		}
		items = append(items, stored)
		total += stored.PriceMicros * stored.Quantity
	}
	placed, _, err := scanOrder(tx.QueryRow(ctx, `
		INSERT INTO orders (id, key, fingerprint, number, status, items, currency, total_micros, customer_name,
			customer_email, customer_phone, shipping_address, payment_method, notes)
		VALUES ($1, $2, $3, 'INV-' || to_char(now(), 'YYYYMMDD') || '-' || nextval('order_number'), 'PLACED', $4,
			$5, $6, $7, $8, $9, $10, $11, $12)
		RETURNING `+orderColumns, uuid.New(), key, fingerprint[:], items, currency, total, wanted.Customer.Name,
		wanted.Customer.Email, wanted.Customer.Phone, wanted.ShippingAddress, wanted.PaymentMethod, wanted.Notes))
	if err != nil {
		return order{}, err
	}
	_, err = tx.Exec(ctx, "INSERT INTO order_event (order_id, version, status) VALUES ($1, 1, 'PLACED')", placed.ID)
	return placed, err
}

func (s server) cancelOrder(w http.ResponseWriter, r *http.Request) {
	id, verb, _ := strings.Cut(r.PathValue("id"), ":")
	if verb != "cancel" {
		answer(w, nil, pgx.ErrNoRows)
		return
	}
	var cancelled order
	err := pgx.BeginFunc(r.Context(), s.pool, func(tx pgx.Tx) error {
		var items []storedItem
		var err error
		cancelled, items, err = scanOrder(tx.QueryRow(r.Context(), `
			UPDATE orders SET status = 'CANCELLED', version = version + 1, update_time = now()
			WHERE id = $1 AND status IN ('PLACED', 'PROCESSED') RETURNING `+orderColumns, id))
		if err != nil {
			return err
		}
		sort.Slice(items, func(i, j int) bool { return items[i].ProductID < items[j].ProductID })
		for _, each := range items {
			if _, err := tx.Exec(r.Context(), "UPDATE product SET stock = stock + $2 WHERE id = $1", each.ProductID, each.Quantity); err != nil {
				return err
			}
		}
		_, err = tx.Exec(r.Context(), `INSERT INTO order_event (order_id, version, status)
			VALUES ($1, $2, 'CANCELLED')`, id, cancelled.ETag)
		return err
	})
	answer(w, cancelled, err)
}

func main() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("RIVAL_DATABASE"))
	if err != nil {
		log.Fatal(err)
	}
	s := server{pool}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/products/{id}", s.getProduct)
	mux.HandleFunc("GET /api/v1/products", s.listProducts)
	mux.HandleFunc("GET /api/v1/orders/{id}", s.getOrder)
	mux.HandleFunc("GET /api/v1/orders", s.listOrders)
	mux.HandleFunc("POST /api/v1/orders", s.createOrder)
	mux.HandleFunc("POST /api/v1/orders/{id}", s.cancelOrder)
	log.Fatal(http.ListenAndServe(os.Args[1], mux))
}
