/* Intrusive doubly linked list with a head node. An item that is in no list has next == NULL. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *head) { head->next = head->prev = head; }
static inline bool list_empty(const struct list *head) { return head->next == head; }
static inline bool list_linked(const struct list *item) { return item->next != NULL; }
static inline void list_push_back(struct list *head, struct list *item) {
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
}
static inline void list_push_front(struct list *head, struct list *item) {
    item->next = head->next;
    item->prev = head;
    head->next->prev = item;
    head->next = item;
}
/* Safe on an item that is in no list. */
static inline void list_remove(struct list *item) {
    if (item->next == NULL)
        return;
    item->prev->next = item->next;
    item->next->prev = item->prev;
    item->next = item->prev = NULL;
}
static inline struct list *list_pop_front(struct list *head) {
    if (list_empty(head))
        return NULL;
    struct list *item = head->next;
    list_remove(item);
    return item;
}
static inline struct list *list_pop_back(struct list *head) {
    if (list_empty(head))
        return NULL;
    struct list *item = head->prev;
    list_remove(item);
    return item;
}
#define list_for(item, head)                                                                       \
    for (struct list *item = (head)->next; item != (head); item = item->next)
