# what serves it
